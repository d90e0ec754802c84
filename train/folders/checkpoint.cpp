#include "train/folders/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <thread>

#include "engine/io/file_pieces.h"
#include "engine/io/files.h"
#include "engine/io/sha256.h"
#include "train/folders/adapter_folder.h"

namespace colonnade {
namespace {

constexpr int64_t format_version = 4, oldest_version = 2;

Json layout_json(const ParameterList& parameters) {
    Json layout = Json::array();
    for (const Parameter& p : parameters.all())
        layout.push_back({{"name", p.name}, {"begin", p.begin}, {"shape", p.shape}});
    return layout;
}

/// Identifies the adapters; null if the whole model is trained.
Json lora_json(const Learner& learner) {
    const auto& lora = learner.options().lora;
    if (!lora) return nullptr;
    const auto code = learner.options().base_code;
    return {{"rank", lora->rank},
            {"alpha", lora->alpha},
            {"use_rslora", lora->rslora},
            {"targets", lora->targets},
            {"head", lora->head},
            {"base_sha256", learner.base_hash()},
            {"base_quantization", code ? name_of(*code) : "none"}};
}

/// Identifies the frozen part of the model; null if there is none.
Json frozen_json(const Learner& learner) {
    return learner.options().freeze ? Json(learner.base_hash()) : Json();
}

const char* finetuning_of(const Json& lora, const Json& frozen) {
    return !lora.is_null() ? "lora" : frozen.is_null() ? "full" : "freeze";
}

/// Throws unless the checkpoint trained what this learner trains, beside the same base.
void check_base(const std::string& path, const Json& state, const Learner& learner) {
    const Json expected = lora_json(learner), found = state.value("lora", Json());
    const Json frozen = frozen_json(learner), found_frozen = state.value("frozen_sha256", Json());
    const std::string kind = finetuning_of(found, found_frozen), own = finetuning_of(expected, frozen);
    if (kind != own)
        fail(Exit::data, "{}: the checkpoint is of a run with finetuning_type {}; this run has finetuning_type {}",
             path, kind, own);
    if (const Json& layout = state.at("layout"); !frozen.is_null() && layout != layout_json(learner.parameters()))
        fail(Exit::data, "{}: other layers were trained: {} parameters, here {}", path, layout.size(),
             learner.parameters().all().size());
    if (found_frozen != frozen)
        fail(Exit::data,
             "{}: the frozen weights are others than those of model_name_or_path (SHA-256 {:.16}..., here "
             "{:.16}...)",
             path, found_frozen.get<std::string>(), frozen.get<std::string>());
    if (expected.is_null()) return;
    for (const auto& [key, value] : expected.items()) {
        if (key == "base_quantization" && !learner.options().training) continue;  // adapters fit the base in any form
        const Json other = key == "base_quantization" ? found.value(key, Json("none")) : found.at(key);
        if (other == value) continue;
        if (key == "base_sha256")
            fail(Exit::data, "{}: the adapters belong to another base model (SHA-256 {:.16}..., here {:.16}...)", path,
                 other.get<std::string>(), value.get<std::string>());
        fail(Exit::data, "{}: the adapters have {} {}, but this run has {}", path, key, other.dump(), value.dump());
    }
}

/// Half of the cores, so that training keeps the others; ranks of one machine divide them.
int writer_threads(const Ranks& ranks) {
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2 / ranks.local_size(), 1, 8);
}

/// An integer in JSON. A real number may be beyond the range of T, so it is another type, as a text would be.
template <typename T = int64_t>
T integer_of(const Json& json) {
    if (!json.is_number_integer())
        throw Json::type_error::create(302, fmt::format("type must be integer, but is {}", json.type_name()), &json);
    return json.get<T>();
}
int64_t integer_in(const Json& object, const char* key, int64_t if_missing) {
    return object.contains(key) ? integer_of(object.at(key)) : if_missing;
}

// JSON has no infinity: the minimum or maximum of no values is null.
Json sums_json(const LossSums& sums) {
    Json numbers = Json::array();
    for (const double n : sums.numbers()) numbers.push_back(n == LossSums::nothing ? Json() : Json(n));
    return numbers;
}

LossSums sums_of(const Json& json) {
    // Older builds wrote 8 sums and 2 extremes, then 11 and 6.
    const size_t sums = json.size() == 10   ? 8
                        : json.size() == 17 ? 11
                                            : LossSums::sums,
                 maxima = json.size() == 10   ? 2
                          : json.size() == 17 ? 6
                                              : LossSums::maxima;
    const auto number = [&](size_t i) { return json.at(i).is_null() ? LossSums::nothing : json.at(i).get<double>(); };
    LossSums::Numbers numbers = LossSums().numbers();
    for (size_t i = 0; i < sums; ++i) numbers[i] = number(i);
    for (size_t i = 0; i < maxima; ++i) numbers[LossSums::sums + i] = number(sums + i);
    return LossSums::of(numbers);
}

Json recent_json(const std::vector<StepNumbers>& recent) {
    Json steps = Json::array();
    for (const StepNumbers& n : recent) steps.push_back({n.step, n.loss, n.gradient_norm});
    return steps;
}

std::vector<StepNumbers> recent_of(const Json& json) {
    std::vector<StepNumbers> recent;
    for (const Json& step : json)
        recent.push_back({integer_of(step.at(0)), step.at(1).get<double>(), step.at(2).get<double>()});
    return recent;
}

/// The value is text, because JSON has no infinity.
Json best_json(const BestRecord& best) {
    if (best.metric.empty()) return nullptr;
    return {{"metric", best.metric},
            {"greater_is_better", best.greater_is_better},
            {"value", fmt::format("{}", best.value)},
            {"step", best.step},
            {"without_improvement", best.without_improvement},
            {"output_dir", best.output_dir}};
}

BestRecord best_of(const Json& json) {
    if (json.is_null()) return {};
    BestRecord best{.metric = json.at("metric").get<std::string>(),
                    .greater_is_better = json.at("greater_is_better").get<bool>(),
                    .step = integer_of(json.at("step")),
                    .without_improvement = integer_of(json.at("without_improvement")),
                    .output_dir = json.at("output_dir").get<std::string>()};
    const auto text = json.at("value").get<std::string>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), best.value);
    if (error != std::errc() || end != text.data() + text.size())
        throw Json::other_error::create(501, "best.value is no number", &json);
    return best;
}

Json pieces_json(const std::vector<FilePiece>& pieces) {
    Json json = Json::array();
    for (const FilePiece& piece : pieces) json.push_back({{"bytes", piece.bytes}, {"sha256", piece.sha256}});
    return json;
}

FilePiece piece_of(const Json& json) {
    return {integer_of<uint64_t>(json.at("bytes")), json.at("sha256").get<std::string>()};
}

/// Version 2 has one hash of the whole file.
std::vector<FilePiece> pieces_of(const Json& file, int64_t version) {
    if (version == 2) return {piece_of(file)};
    std::vector<FilePiece> pieces;
    for (const Json& json : file.at("pieces")) pieces.push_back(piece_of(json));
    return pieces;
}

Json facts_json(const std::vector<std::pair<std::string, std::string>>& facts) {
    Json json = Json::object();
    for (const auto& [name, value] : facts) json[name] = value;
    return json;
}

std::vector<std::pair<std::string, std::string>> facts_of(const Json& json) {
    std::vector<std::pair<std::string, std::string>> facts;
    for (const auto& [name, value] : json.items()) facts.emplace_back(name, value.get<std::string>());
    return facts;
}

// In our own JSON files a missing or mistyped key is damage like any other.
template <typename Read>
auto read_keys(const std::string& path, Read&& read) {
    const Json json = read_json_file(path);
    try {
        return read(json);
    } catch (const Json::exception& e) {
        fail(Exit::data, "{}: {}; {}", path, e.what(), damage_advice);
    }
}

/// An entry of the manifest.
void check_file(const std::string& path, const Json& entry, int64_t version) {
    const auto bytes = integer_of<uint64_t>(entry.at("bytes"));
    if (!is_file(path)) fail(Exit::data, "{:.500}: file is missing; {}", path, damage_advice);
    if (const uint64_t found = InputFile(path).size(); found != bytes)
        fail(Exit::data, "{}: {} bytes, expected {}; {}", path, found, bytes, damage_advice);
    check_pieces(path, pieces_of(entry, version), damage_advice);
}

}  // namespace

CheckpointSave::CheckpointSave(std::string folder, const Learner& learner, TrainerState state, const Ranks& ranks,
                               FurtherFiles further)
    : learner_(learner), state_(std::move(state)), ranks_(ranks), further_(std::move(further)) {
    ranks_.together("checkpoint", [&] {
        if (ranks_.first()) commit_ = std::make_unique<FolderCommit>(std::move(folder));
    });
    folder_ = ranks_.broadcast("checkpoint", commit_ ? commit_->folder() : "");
}

void CheckpointSave::write(const LearnerState& saved) {
    adapters_ = saved.adapters;
    weights_ = [weights = saved.arrays.front(), gpu = saved.gpu] { return weights.read(gpu); };
    pieces_ = write_shard(folder_, learner_, saved, writer_threads(ranks_));
}

void CheckpointSave::gather() {
    const std::vector<std::string> all = ranks_.gather("checkpoint", pieces_json(pieces_).dump(), Deadline::none);
    if (!ranks_.first()) return;
    for (size_t r = 0; r < all.size(); ++r) {
        shards_.push_back({shard_name(static_cast<int>(r), ranks_.size()), {}});
        for (const Json& piece : Json::parse(all[r])) shards_.back().pieces.push_back(piece_of(piece));
    }
}

void CheckpointSave::write_manifest(const std::string& dir) {
    std::vector<File> all = std::move(shards_);
    for (const std::string& name : names_in(dir))
        if (!is_shard_name(name)) all.push_back({name, hash_pieces(dir + "/" + name, writer_threads(ranks_))});
    std::ranges::sort(all, {}, &File::name);
    Json files = Json::array();
    for (const File& file : all) {
        const uint64_t bytes = InputFile(dir + "/" + file.name).size();
        files.push_back({{"name", file.name}, {"bytes", bytes}, {"pieces", pieces_json(file.pieces)}});
        bytes_ += bytes;
    }
    const Json body = {
        {"format", "colonnade-checkpoint"}, {"version", format_version}, {"step", state_.step}, {"files", files}};
    write_file_atomically(dir + "/manifest.json", Json{{"body", body}, {"sha256", sha256(body.dump())}}.dump(1) + "\n");
}

uint64_t CheckpointSave::commit() {
    const std::string& dir = commit_->folder();
    const Json trainer = {{"step", state_.step},
                          {"tokens_seen", state_.tokens_seen},
                          {"samples_seen", state_.samples_seen},
                          {"since_log", sums_json(state_.since_log)},
                          {"data_key", state_.data_key},
                          {"reference_key", state_.reference_key},
                          {"ranks", state_.ranks},
                          {"packs_per_step", state_.packs_per_step},
                          {"skipped_steps", state_.skipped_steps},
                          {"recent", recent_json(state_.recent)},
                          {"best", best_json(state_.best)},
                          {"made_by", facts_json(state_.made_by)},
                          {"lora", lora_json(learner_)},
                          {"frozen_sha256", frozen_json(learner_)},
                          {"layout", layout_json(learner_.parameters())}};
    write_file_atomically(dir + "/trainer_state.json", trainer.dump(1) + "\n");
    write_file_atomically(dir + "/config.yaml", state_.config_yaml);
    write_file_atomically(dir + "/model_config.json", to_json(learner_.config()).dump(2) + "\n");
    if (const auto& lora = learner_.options().lora)
        write_adapter(dir, {*lora, state_.base_model}, learner_.parameters(), adapters_().tensor());
    if (further_) further_(dir, learner_.sync().sharded() ? Tensor() : weights_().tensor());
    write_manifest(dir);
    commit_->commit();
    return bytes_;
}

uint64_t save_checkpoint(const std::string& folder, const Learner& learner, const TrainerState& state,
                         const Ranks& ranks, const FurtherFiles& further) {
    CheckpointSave save(folder, learner, state, ranks, further);
    const LearnerState now = present_state(learner);
    ranks.together("checkpoint", [&] { save.write(now); });
    save.gather();
    uint64_t bytes = 0;
    ranks.together("checkpoint", [&] {
        if (ranks.first()) bytes = save.commit();
    });
    return bytes;
}

WholeCheckpoint check_checkpoint(const std::string& folder) {
    const std::string path = folder + "/manifest.json";
    if (!is_folder(folder)) fail(Exit::data, "{}: no such checkpoint", folder);
    if (!path_exists(path)) fail(Exit::data, "{}: not a checkpoint: manifest.json is missing", folder);
    return read_keys(path, [&](const Json& json) {
        const Json& body = json.at("body");
        const std::string expected = json.at("sha256").get<std::string>(), found = sha256(body.dump());
        if (found != expected)
            fail(Exit::data, "{}: SHA-256 of the body is {}, expected {}; {}", path, found, expected, damage_advice);
        const auto version = integer_of(body.at("version"));
        if (version < oldest_version || version > format_version)
            fail(Exit::config, "{}: checkpoint version {}, but this build reads versions {} to {}", path, version,
                 oldest_version, format_version);
        WholeCheckpoint checkpoint{.folder = folder};
        for (const Json& entry : body.at("files")) {
            const auto name = entry.at("name").get<std::string>();
            if (name.find('/') != name.npos)
                fail(Exit::data, "{}: names '{:.200}', which is not a file of its folder; {}", path, name,
                     damage_advice);
            check_file(folder + "/" + name, entry, version);
            if (is_shard_name(name)) checkpoint.shards.push_back(name);
        }
        return checkpoint;
    });
}

TrainerState load_checkpoint(const std::string& folder, Learner& learner) {
    return load_checkpoint(check_checkpoint(folder), learner);
}

TrainerState load_checkpoint(const WholeCheckpoint& checkpoint, Learner& learner) {
    const std::string& folder = checkpoint.folder;
    const std::string state_path = folder + "/trainer_state.json";
    TrainerState state = read_keys(state_path, [&](const Json& json) {
        check_base(state_path, json, learner);
        if (json.at("layout") != layout_json(learner.parameters()))
            fail(Exit::data, "{}: the checkpoint contains a model of another shape ({} parameters listed, {} expected)",
                 state_path, json.at("layout").size(), learner.parameters().all().size());
        return TrainerState{.step = integer_of(json.at("step")),
                            .tokens_seen = integer_of(json.at("tokens_seen")),
                            .samples_seen = integer_of(json.at("samples_seen")),
                            .since_log = sums_of(json.at("since_log")),
                            .data_key = json.at("data_key").get<std::string>(),
                            .reference_key = json.at("reference_key").get<std::string>(),
                            .ranks = integer_in(json, "ranks", 1),
                            .packs_per_step = integer_in(json, "packs_per_step", 0),
                            .skipped_steps = integer_in(json, "skipped_steps", 0),
                            .recent = recent_of(json.value("recent", Json::array())),
                            .best = best_of(json.value("best", Json())),
                            .made_by = facts_of(json.value("made_by", Json::object())),
                            .config_yaml = read_file(folder + "/config.yaml")};
    });
    read_shards(folder, checkpoint.shards, learner);
    return state;
}

ModelConfig checkpoint_model(const WholeCheckpoint& checkpoint) {
    const std::string path = checkpoint.folder + "/model_config.json";
    return parse_model_config(read_json_file(path), path);
}

}  // namespace colonnade
