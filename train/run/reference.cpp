#include "train/run/reference.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/io/files.h"
#include "engine/io/folder_lock.h"
#include "engine/io/hdf5.h"
#include "engine/io/sha256.h"
#include "train/folders/initial_weights.h"
#include "train/run/given_logps.h"

namespace colonnade {
namespace {

constexpr const char* reference_format = "colonnade-reference";
constexpr std::string_view reference_stem = "reference-";
constexpr int64_t format_version = 1;

template <typename T>
std::string payload_hash(const std::vector<T>& values) {
    return sha256({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

template <typename T>
void write_table(const std::string& path, const std::string& key, const std::vector<T>& logps) {
    const std::string folder = parent_of(path);
    make_folders(folder);
    const SharedFolder share(folder, std::array{reference_stem});
    FileCommit commit(path);
    Hdf5Writer file(commit.temporary());
    file.write("logps", view_of(logps));
    file.attribute("format", reference_format);
    file.attribute("format_version", format_version);
    file.attribute("key", key);
    file.attribute("payload_sha256", payload_hash(logps));
    file.close();
    commit.commit();
}

template <typename T>
std::vector<T> read_table(const std::string& path, const std::string& key, int64_t count) {
    try {
        const Hdf5Reader file(path);
        const auto expect = [&](const char* what, const auto& found, const auto& expected) {
            if (found != expected) fail(Exit::data, "{}: {} is {}, expected {}", path, what, found, expected);
        };
        expect("format", file.text_attribute("format"), std::string(reference_format));
        expect("format_version", file.int_attribute("format_version"), format_version);
        expect("key", file.text_attribute("key"), key);
        std::vector<T> logps = file.read_all<T>("logps");
        expect("number of log-probabilities", std::ssize(logps), count);
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
    const auto add = [&](const HostCopy& host) { hash.update(host.tensor().data, host.tensor().bytes()); };
    if (!fresh_adapters) {
        const StateArray weights = learner.rounded_weights();
        constexpr int64_t piece = int64_t{1} << 24;
        for (int64_t begin = 0; begin < weights.size(); begin += piece)
            add(weights.read(gpu, {begin, std::min(begin + piece, weights.size())}));
    }
    if (learner.has_base()) {
        const auto& lora = learner.options().lora;
        const std::string base =
            fmt::format("base {} scale {}", learner.base_hash(), lora && !fresh_adapters ? lora->scale() : 0);
        hash.update(base.data(), base.size());
        if (const auto code = learner.options().base_code)
            hash.update(name_of(*code), std::string_view(name_of(*code)).size());
        if (!gpu) add(HostCopy::of(nullptr, learner.base()));  // in f32: base_hash() covers the bf16 values
    }
    return hash.hex();
}

bool is_policy(const Learner& learner) {
    return learner.objective().answers() == Answers::policy;
}

/// Sample i has the numbers [o[i], o[i + 1]) of a table.
std::vector<int64_t> offsets_of(const TokenStore& store, const Learner& learner) {
    return is_policy(learner) ? store.learned_offsets() : store.sequence_offsets();
}

/// How many log-probabilities a split has.
int64_t count_of(const StoreResult& split, const Learner& learner) {
    return offsets_of(split.store, learner).back() + (split.mismatched.empty() ? 0 : split.store.size());
}

/// The log-probability of a sequence or a token, at its place in the file. Throws Exit::numerics, naming what() it is of,
/// if it is not finite.
template <typename What>
void keep(std::vector<double>& logps, int64_t at, double logp, What&& what) {
    if (!std::isfinite(logp))
        fail(Exit::numerics, "{}: under the reference, it has the log-probability {}", what(), logp);
    logps[static_cast<size_t>(at)] = std::min(logp, 0.0);  // rounding may give more
}

/// Tables under the weights that the learner has.
class Tables {
  public:
    struct Where {
        const Session& session;
        Learner& learner;
        const Context& ctx;
        const Ranks& ranks;
    };
    Tables(const Where& where, bool fresh_adapters)
        : at_(where),
          model_(fmt::format("{} {} {} {}{}", format_version, weights_hash(where.learner, fresh_adapters),
                             to_json(where.session.model).dump(), name_of(where.learner.options().compute_dtype()),
                             where.learner.options().fp8 ? " fp8" : "")) {}

    template <typename T>
    std::vector<T> of(const StoreResult& split) {
        std::vector<T> logps;
        if (split.store.size() == 0) return logps;
        const Config& c = at_.session.config;
        const char* const name = &split == &at_.session.train ? "train" : "eval";
        std::string inputs = fmt::format("{} {} {} {}", model_, at_.session.data_key, split.key, name);
        if (!split.mismatched.empty()) inputs += fmt::format(" mismatched by {}", c.data_seed);
        if (is_policy(at_.learner)) inputs += fmt::format(" of tokens at {}", c.temperature);
        const std::string key = sha256(inputs);
        if (&split == &at_.session.train) key_ = key;
        const std::string path = fmt::format("{}/{}{}-{:.16}.h5", c.prepared_path, reference_stem, name, key);
        const std::string label = fmt::format("reference {}", name);
        ProgressOptions progress{.label = label};
        if (!at_.ranks.first()) progress.write = [](std::string_view) {};
        at_.ranks.in_turn(label, [&] {
            if (path_exists(path)) {
                logps = read_table<T>(path, key, count_of(split, at_.learner));
                notices_.push_back(fmt::format("reference of {} samples: read from {}", split.store.size(), path));
                return;
            }
            const PackScheduleSettings settings{
                .packing = eval_packing(c), .layout = {c.per_device_eval_batch_size, 1, 1}, .epochs = 1};
            const std::vector<double> found = compute_reference(split, settings, at_.learner, at_.ctx, progress);
            logps.assign(found.begin(), found.end());
            write_table(path, key, logps);
        });
        return logps;
    }
    const std::string& key() const { return key_; }  ///< of the training split's table
    const std::vector<std::string>& notices() const { return notices_; }

  private:
    Where at_;
    std::string model_, key_;
    std::vector<std::string> notices_;
};

}  // namespace

std::vector<double> compute_reference(const StoreResult& split, const PackScheduleSettings& settings, Learner& learner,
                                      const Context& ctx, const ProgressOptions& options) {
    const TokenStore& store = split.store;
    PackSchedule schedule(split.row_lengths(), settings, split.prefixes, store.visible_pairs());
    ProgressOptions with_total = options;
    with_total.total = static_cast<double>(store.size());
    with_total.unit = "samples";
    Progress progress(with_total);
    const std::vector<int64_t> begins = offsets_of(store, learner);
    const char* const unit = is_policy(learner) ? "learned token" : "answer";
    std::vector<double> logps(static_cast<size_t>(count_of(split, learner)), std::nan(""));
    Loader loader(store, schedule, {.mismatched = &split.mismatched});
    int64_t done = 0;
    while (const auto loaded = loader.next()) {
        const std::vector<double> measured = learner.measure(ctx, loaded->batch);
        size_t at = 0;
        for (const int64_t sample : loaded->samples) {
            const auto i = static_cast<size_t>(sample);
            for (int64_t b = begins[i]; b < begins[i + 1]; ++b)
                keep(logps, b, measured.at(at++),
                     [&] { return fmt::format("{}, {} {}", store.place(sample), unit, b - begins[i] + 1); });
        }
        at = 0;
        for (const Batch& batch : loaded->mismatched)
            for (const double logp : learner.measure(ctx, batch)) {
                const int64_t sample = loaded->samples.at(at++);
                keep(logps, begins.back() + sample, logp, [&] {
                    return fmt::format("{}, its prompt with the answer of {}", store.place(sample),
                                       store.place(split.mismatched.partner(sample)));
                });
            }
        progress.update(static_cast<double>(done += std::ssize(loaded->samples)));
    }
    progress.finish();
    return logps;
}

bool computes_references(const Session& session, const Learner& learner) {
    if (is_policy(learner)) return missing_logps(session).tables() > 0;
    return learner.objective().needs_reference() && learner.options().reference == Reference::batches;
}

/// Puts the log-probabilities of learned tokens that are missing into the stores.
static void fill_logps(Session& session, const MissingLogps& missing, Tables& tables) {
    for (StoreResult* split : {&session.train, &session.eval}) {
        std::vector<float> logps = tables.of<float>(*split);
        if (missing.old && missing.reference) split->store.set_logps(&GivenLogps::old, logps);
        split->store.set_logps(missing.reference ? &GivenLogps::reference : &GivenLogps::old, std::move(logps));
    }
}

References make_references(Session& session, Learner& learner, const Context& ctx, const Ranks& ranks) {
    References result;
    if (!computes_references(session, learner)) return result;
    const Config& c = session.config;
    const bool other = !c.ref_model_name_or_path.empty(), lora = learner.options().lora.has_value();
    const auto take = [&](const Tables& tables) {
        result.key = result.key.empty() ? tables.key() : sha256(result.key + tables.key());
        result.notices.insert(result.notices.end(), tables.notices().begin(), tables.notices().end());
    };
    MissingLogps missing = missing_logps(session);
    if (missing.old) {
        Tables tables({session, learner, ctx, ranks}, lora && c.adapter_name_or_path.empty());
        fill_logps(session, {.old = true, .reference = missing.reference && !other}, tables);
        take(tables);
        missing.old = false;
        missing.reference = missing.reference && other;
        if (!missing.reference) return result;
    }
    if (other) load_model(c.ref_model_name_or_path, static_cast<uint64_t>(c.seed), learner);
    Tables tables({session, learner, ctx, ranks}, lora && (other || c.adapter_name_or_path.empty()));
    if (missing.reference) {
        fill_logps(session, missing, tables);
    } else {
        result.train = tables.of<double>(session.train);
        result.eval = tables.of<double>(session.eval);
    }
    take(tables);
    if (other) load_or_initialize(c, learner);
    return result;
}

}  // namespace colonnade
