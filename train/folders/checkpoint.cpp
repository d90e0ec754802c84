#include "train/folders/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <thread>

#include "engine/io/file_pieces.h"
#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/sha256.h"
#include "train/folders/adapter_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;
constexpr int64_t format_version = 3, oldest_version = 2;
constexpr const char* shard_name = "state-00001-of-00001.h5";
constexpr const char* advice = "the checkpoint is damaged: delete it and resume from an older one";

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
    return {{"rank", lora->rank},       {"alpha", lora->alpha}, {"use_rslora", lora->rslora},
            {"targets", lora->targets}, {"head", lora->head},   {"base_sha256", learner.base_hash()}};
}

void check_lora(const std::string& path, const Json& found, const Json& expected) {
    if (found.is_null() != expected.is_null())
        fail(Exit::data, "{}: the checkpoint is of a run with finetuning_type {}; this run has finetuning_type {}",
             path, found.is_null() ? "full" : "lora", expected.is_null() ? "full" : "lora");
    if (expected.is_null()) return;
    for (const auto& [key, value] : expected.items()) {
        if (found.at(key) == value) continue;
        if (key == "base_sha256")
            fail(Exit::data, "{}: the adapters belong to another base model (SHA-256 {:.16}..., here {:.16}...)", path,
                 found.at(key).get<std::string>(), value.get<std::string>());
        fail(Exit::data, "{}: the adapters have {} {}, but this run has {}", path, key, found.at(key).dump(),
             value.dump());
    }
}

/// Half of the cores, so that training keeps the others.
int writer_threads() {
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 8);
}

struct ShardResult {
    std::vector<FilePiece> pieces;
    std::optional<HostCopy> adapters{};  ///< LoRA: the weights
};

ShardResult write_shard(const std::string& path, const Learner& learner, const LearnerState& saved) {
    const int64_t n = learner.parameters().size();
    Hdf5Writer layout(path);
    const uint64_t weights = layout.reserve("weights", sum_dtype(learner.weights().dtype), n),
                   m = layout.reserve("adamw/m", sum_dtype(learner.m().dtype), n),
                   v = layout.reserve("adamw/v", sum_dtype(learner.v().dtype), n);
    layout.attribute("begin", int64_t{0});
    layout.attribute("end", n);
    layout.attribute("updates", saved.updates);
    layout.close();
    FilledFile file(path, writer_threads());
    ShardResult result;
    {
        const HostCopy copy = saved.weights();
        file.fill({weights, copy.tensor()});
        if (learner.options().lora) result.adapters = copy;
    }
    file.fill({m, saved.m().tensor()});
    file.fill({v, saved.v().tensor()});
    result.pieces = file.finish();
    return result;
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
    LossSums::Numbers numbers;
    for (size_t i = 0; i < numbers.size(); ++i)
        numbers[i] = json.at(i).is_null() ? LossSums::nothing : json.at(i).get<double>();
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

/// Returns the bytes of all files.
uint64_t write_manifest(const std::string& folder, int64_t step, const std::vector<FilePiece>& shard) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    Json files = Json::array();
    uint64_t total = 0;
    for (const std::string& name : names) {
        const std::string path = folder + "/" + name;
        Json pieces = Json::array();
        for (const FilePiece& piece : name == shard_name ? shard : hash_pieces(path, writer_threads()))
            pieces.push_back({{"bytes", piece.bytes}, {"sha256", piece.sha256}});
        const uint64_t bytes = fs::file_size(path);
        files.push_back({{"name", name}, {"bytes", bytes}, {"pieces", pieces}});
        total += bytes;
    }
    const Json body = {
        {"format", "colonnade-checkpoint"}, {"version", format_version}, {"step", step}, {"files", files}};
    write_file_atomically(folder + "/manifest.json",
                          Json{{"body", body}, {"sha256", sha256(body.dump())}}.dump(1) + "\n");
    return total;
}

/// Version 2 has one hash of the whole file.
std::vector<FilePiece> pieces_of(const Json& file, int64_t version) {
    const auto piece = [](const Json& json) {
        return FilePiece{integer_of<uint64_t>(json.at("bytes")), json.at("sha256").get<std::string>()};
    };
    std::vector<FilePiece> pieces;
    if (version == 2) return {piece(file)};
    for (const Json& json : file.at("pieces")) pieces.push_back(piece(json));
    return pieces;
}

// In our own JSON files a missing or mistyped key is damage like any other.
template <typename Read>
auto read_keys(const std::string& path, Read&& read) {
    const Json json = read_json_file(path);
    try {
        return read(json);
    } catch (const Json::exception& e) {
        fail(Exit::data, "{}: {}; {}", path, e.what(), advice);
    }
}

void verify(const std::string& folder) {
    const std::string path = folder + "/manifest.json";
    if (!fs::is_directory(folder)) fail(Exit::data, "{}: no such checkpoint", folder);
    if (!fs::exists(path)) fail(Exit::data, "{}: not a checkpoint: manifest.json is missing", folder);
    read_keys(path, [&](const Json& json) {
        const Json& body = json.at("body");
        const std::string expected = json.at("sha256").get<std::string>(), found = sha256(body.dump());
        if (found != expected)
            fail(Exit::data, "{}: SHA-256 of the body is {}, expected {}; {}", path, found, expected, advice);
        const auto version = integer_of(body.at("version"));
        if (version < oldest_version || version > format_version)
            fail(Exit::data, "{}: checkpoint version {}, but this build reads versions {} to {}", path, version,
                 oldest_version, format_version);
        for (const Json& entry : body.at("files")) {
            const auto name = entry.at("name").get<std::string>();
            if (name.find('/') != name.npos)
                fail(Exit::data, "{}: names '{:.200}', which is not a file of its folder; {}", path, name, advice);
            const std::string file = folder + "/" + name;
            const auto bytes = integer_of<uint64_t>(entry.at("bytes"));
            std::error_code error;  // of a name that is too long
            if (!fs::is_regular_file(file, error)) fail(Exit::data, "{:.500}: file is missing; {}", file, advice);
            if (fs::file_size(file) != bytes)
                fail(Exit::data, "{}: {} bytes, expected {}; {}", file, fs::file_size(file), bytes, advice);
            check_pieces(file, pieces_of(entry, version), advice);
        }
        return 0;
    });
}

}  // namespace

void contribute_to_checkpoint(const Learner& learner) {
    for (const Tensor* state : {&learner.weights(), &learner.m(), &learner.v()})
        if (learner.sharded(*state)) learner.whole(*state);
}

uint64_t save_checkpoint(const std::string& folder, const Learner& learner, const TrainerState& state) {
    const auto whole = [&learner](Tensor part) { return [&learner, part] { return learner.whole(part); }; };
    return write_checkpoint(
        folder, learner, {whole(learner.weights()), whole(learner.m()), whole(learner.v()), learner.updates()}, state);
}

uint64_t write_checkpoint(const std::string& folder, const Learner& learner, const LearnerState& saved,
                          const TrainerState& state) {
    FolderCommit commit(folder);
    const std::string& dir = commit.folder();
    const ShardResult shard = write_shard(dir + "/" + shard_name, learner, saved);
    const Json trainer = {{"step", state.step},
                          {"tokens_seen", state.tokens_seen},
                          {"samples_seen", state.samples_seen},
                          {"since_log", sums_json(state.since_log)},
                          {"data_key", state.data_key},
                          {"reference_key", state.reference_key},
                          {"ranks", state.ranks},
                          {"packs_per_step", state.packs_per_step},
                          {"skipped_steps", state.skipped_steps},
                          {"recent", recent_json(state.recent)},
                          {"lora", lora_json(learner)},
                          {"layout", layout_json(learner.parameters())}};
    write_file_atomically(dir + "/trainer_state.json", trainer.dump(1) + "\n");
    write_file_atomically(dir + "/config.yaml", state.config_yaml);
    write_file_atomically(dir + "/model_config.json", to_json(learner.config()).dump(2) + "\n");
    if (const auto& lora = learner.options().lora)
        write_adapter(dir, {*lora, state.base_model}, learner.parameters(), shard.adapters->tensor());
    const uint64_t bytes = write_manifest(dir, state.step, shard.pieces);
    commit.commit();
    return bytes;
}

TrainerState load_checkpoint(const std::string& folder, Learner& learner) {
    verify(folder);
    const std::string state_path = folder + "/trainer_state.json";
    TrainerState state = read_keys(state_path, [&](const Json& json) {
        check_lora(state_path, json.value("lora", Json()), lora_json(learner));
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
                            .config_yaml = read_file(folder + "/config.yaml")};
    });
    const std::string shard_path = folder + "/" + shard_name;
    const Hdf5Reader shard(shard_path);
    const auto read = [&](const char* name, const Tensor& into, const std::vector<Range>& slices) {
        if (into.empty()) return;  // a learner for inference has no moments
        if (const int64_t expected = learner.parameters().size(); shard.count(name) != expected)
            fail(Exit::data, "{}: '{}' has {} numbers, expected {}", shard_path, name, shard.count(name), expected);
        const HostCopy host = HostCopy::to_fill(learner.options().gpu, into);
        const DType dtype = host.tensor().dtype;
        if (shard.dtype(name) != dtype)
            fail(Exit::data, "{}: '{}' holds {}, expected {}", shard_path, name, shard.dtype(name), dtype);
        std::vector<FileRegion> regions;
        int64_t at = 0;
        for (const Range& s : slices) {
            const uint64_t begin = shard.offset(name) + static_cast<uint64_t>(s.begin) * bytes_of(dtype);
            if (s.size() > 0) regions.push_back({begin, host.tensor().slice(0, at, at + s.size())});
            at += s.size();
        }
        read_regions(shard_path, regions);
        host.store();
    };
    learner.fill_weights([&](const Tensor& weights) { read("weights", weights, {{0, learner.parameters().size()}}); });
    read("adamw/m", learner.m(), learner.sync().state());
    read("adamw/v", learner.v(), learner.sync().state());
    learner.set_updates(shard.int_attribute("updates"));
    return state;
}

ModelConfig checkpoint_model(const std::string& folder) {
    verify(folder);
    const std::string path = folder + "/model_config.json";
    return parse_model_config(read_json_file(path), path);
}

std::string checkpoint_folder(const std::string& output_dir, int64_t step) {
    return fmt::format("{}/checkpoint-{}", output_dir, step);
}

std::vector<int64_t> checkpoint_steps(const std::string& output_dir) {
    constexpr std::string_view prefix = "checkpoint-";
    std::vector<int64_t> steps;
    if (!fs::is_directory(output_dir)) return steps;
    for (const auto& entry : fs::directory_iterator(output_dir)) {
        const std::string name = entry.path().filename();
        if (!entry.is_directory() || !name.starts_with(prefix)) continue;
        int64_t step = 0;
        const char* end = name.data() + name.size();
        // "checkpoint-20.tmp-123" is not a checkpoint: the whole rest must be a number.
        const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, step);
        if (error == std::errc() && stop == end) steps.push_back(step);
    }
    std::sort(steps.begin(), steps.end());
    return steps;
}

void rotate_checkpoints(const std::string& output_dir, int64_t keep) {
    if (keep <= 0) return;
    const std::vector<int64_t> steps = checkpoint_steps(output_dir);
    for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i)
        remove_folder(checkpoint_folder(output_dir, steps[i]));
}

void remove_leftovers(const std::string& output_dir) {
    std::vector<fs::path> leftovers;
    for (const auto& entry : fs::directory_iterator(output_dir)) {
        const std::string name = entry.path().filename();
        const bool unfinished = name.find(".tmp-") != name.npos || name.find(".trash-") != name.npos;
        for (const char* ours : {"checkpoint-", "config.yaml.", "metrics.jsonl."})
            if (unfinished && name.starts_with(ours)) leftovers.push_back(entry.path());
    }
    for (const fs::path& path : leftovers) fs::remove_all(path);
}

}  // namespace colonnade
