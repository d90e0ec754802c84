#include "train/run/reference.h"

#include <array>
#include <cmath>

#include "engine/io/files.h"
#include "engine/io/folder_lock.h"
#include "engine/io/hdf5.h"
#include "engine/io/sha256.h"
#include "train/folders/initial_weights.h"

namespace colonnade {
namespace {

constexpr const char* format_name = "colonnade-reference";
constexpr std::string_view reference_stem = "reference-";
constexpr int64_t format_version = 1;

std::string payload_hash(const std::vector<double>& values) {
    return sha256({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double)});
}

void write_table(const std::string& path, const std::string& key, const std::vector<double>& logps) {
    const std::string folder = parent_of(path);
    make_folders(folder);
    const SharedFolder share(folder, std::array{reference_stem});
    FileCommit commit(path);
    Hdf5Writer file(commit.temporary());
    file.write("logps", view_of(logps));
    file.attribute("format", format_name);
    file.attribute("format_version", format_version);
    file.attribute("key", key);
    file.attribute("payload_sha256", payload_hash(logps));
    file.close();
    commit.commit();
}

std::vector<double> read_table(const std::string& path, const std::string& key, int64_t branches) {
    try {
        const Hdf5Reader file(path);
        const auto expect = [&](const char* what, const auto& found, const auto& expected) {
            if (found != expected) fail(Exit::data, "{}: {} is {}, expected {}", path, what, found, expected);
        };
        expect("format", file.text_attribute("format"), std::string(format_name));
        expect("format_version", file.int_attribute("format_version"), format_version);
        expect("key", file.text_attribute("key"), key);
        std::vector<double> logps = file.read_all<double>("logps");
        expect("number of answers", std::ssize(logps), branches);
        expect("payload_sha256", file.text_attribute("payload_sha256"), payload_hash(logps));
        return logps;
    } catch (const Error& e) {
        if (e.exit() != Exit::data) throw;
        fail(Exit::data, "{}; delete this file to compute the reference again", e.what());
    }
}

/// Hash of all weights that the log-probabilities depend on. Fresh adapters add nothing, whatever their rank and seed.
std::string weights_hash(const Learner& learner, bool fresh_adapters) {
    Gpu* const gpu = learner.options().gpu;
    Sha256 hash;
    const auto add = [&](const Tensor& tensor) {
        const HostCopy host = HostCopy::of(gpu, tensor);
        hash.update(host.tensor().data, host.tensor().bytes());
    };
    if (!fresh_adapters) add(learner.compute_weights());
    if (learner.has_base()) {
        const auto& lora = learner.options().lora;
        const std::string base =
            fmt::format("base {} scale {}", learner.base_hash(), lora && !fresh_adapters ? lora->scale() : 0);
        hash.update(base.data(), base.size());
        if (!gpu) add(learner.base());  // in f32: base_hash() covers the bf16 values
    }
    return hash.hex();
}

}  // namespace

/// How many log-probabilities a split has.
static int64_t answers_of(const StoreResult& split) {
    return split.store.sequence_offsets().back() + (split.mismatched.empty() ? 0 : split.store.size());
}

/// The log-probability of a sequence, at its place in the file. Throws Exit::numerics if it is not finite.
static void keep(std::vector<double>& logps, int64_t at, double logp, const std::string& what) {
    if (!std::isfinite(logp))
        fail(Exit::numerics, "{}: under the reference, it has the log-probability {}", what, logp);
    logps[static_cast<size_t>(at)] = logp;
}

std::vector<double> compute_reference(const StoreResult& split, const PackScheduleSettings& settings, Learner& learner,
                                      const Context& ctx, const ProgressOptions& options) {
    const TokenStore& store = split.store;
    PackSchedule schedule(split.row_lengths(), settings, split.prefixes);
    ProgressOptions with_total = options;
    with_total.total = static_cast<double>(store.size());
    with_total.unit = "samples";
    Progress progress(with_total);
    const std::vector<int64_t>& begins = store.sequence_offsets();
    std::vector<double> logps(static_cast<size_t>(answers_of(split)), std::nan(""));
    Loader loader(store, schedule, {.mismatched = &split.mismatched});
    int64_t done = 0;
    while (const auto loaded = loader.next()) {
        const std::vector<double> measured = learner.measure(ctx, loaded->batch);
        size_t at = 0;
        for (const int64_t sample : loaded->samples) {
            const auto i = static_cast<size_t>(sample);
            for (int64_t b = begins[i]; b < begins[i + 1]; ++b)
                keep(logps, b, measured.at(at++), fmt::format("{}, answer {}", store.place(sample), b - begins[i] + 1));
        }
        at = 0;
        for (const Batch& batch : loaded->mismatched)
            for (const double logp : learner.measure(ctx, batch)) {
                const int64_t sample = loaded->samples.at(at++);
                keep(logps, begins.back() + sample, logp,
                     fmt::format("{}, its prompt with the answer of {}", store.place(sample),
                                 store.place(split.mismatched.partner(sample))));
            }
        progress.update(static_cast<double>(done += std::ssize(loaded->samples)));
    }
    progress.finish();
    return logps;
}

References make_references(const Session& session, Learner& learner, const Context& ctx, const Ranks& ranks) {
    const Config& c = session.config;
    const bool other = !c.ref_model_name_or_path.empty();
    if (other) load_model(c.ref_model_name_or_path, static_cast<uint64_t>(c.seed), learner);
    const bool fresh = learner.options().lora && (other || c.adapter_name_or_path.empty());
    const std::string model = fmt::format("{} {} {} {}", format_version, weights_hash(learner, fresh),
                                          to_json(session.model).dump(), name_of(learner.options().compute_dtype()));
    const PackScheduleSettings settings{
        .packing = eval_packing(c), .layout = {c.per_device_eval_batch_size, 1, 1}, .epochs = 1};
    References result;
    for (const bool training : {true, false}) {
        const StoreResult& split = training ? session.train : session.eval;
        if (split.store.size() == 0) continue;
        const char* const name = training ? "train" : "eval";
        const std::string mismatched = split.mismatched.empty() ? "" : fmt::format(" mismatched by {}", c.data_seed);
        const std::string key =
            sha256(fmt::format("{} {} {} {}{}", model, session.data_key, split.key, name, mismatched));
        const std::string path = fmt::format("{}/{}{}-{:.16}.h5", c.prepared_path, reference_stem, name, key);
        std::vector<double>& logps = training ? result.train : result.eval;
        const std::string label = fmt::format("reference {}", name);
        ProgressOptions progress{.label = label};
        if (!ranks.first()) progress.write = [](std::string_view) {};
        ranks.in_turn(label, [&] {
            if (path_exists(path)) {
                logps = read_table(path, key, answers_of(split));
                result.notices.push_back(
                    fmt::format("reference of {} samples: read from {}", split.store.size(), path));
            } else {
                logps = compute_reference(split, settings, learner, ctx, progress);
                write_table(path, key, logps);
            }
        });
        if (training) result.key = key;
    }
    if (other) load_or_initialize(c, learner);
    return result;
}

}  // namespace colonnade
