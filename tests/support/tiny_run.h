#pragma once
// Training runs that take well under a second: toy data, a config, the trainer in this process or the programs in
// others, and the results of a run.

#include <sys/resource.h>

#include <cmath>
#include <functional>
#include <map>

#include "engine/device/philox.h"
#include "engine/io/hdf5.h"
#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/program.h"
#include "train/run/trainer.h"

namespace colonnade {

constexpr int64_t chain_vocab = 31;

/// JSONL rows of token ids. Each id depends on the previous id by a fixed rule, which a model learns at once and a
/// unigram model never learns. The first two tokens of a row are its prompt.
inline std::string chain_rows(int64_t rows, uint64_t seed = 1) {
    const Philox random{seed, 0};
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
        const auto draw = static_cast<uint64_t>(2 * row);
        int64_t id = static_cast<int64_t>(random.below(draw, chain_vocab));
        const auto length = 4 + static_cast<int64_t>(random.below(draw + 1, 40));
        std::vector<int64_t> ids, labels;
        for (int64_t i = 0; i < length; ++i, id = (7 * id + 3) % chain_vocab) {
            ids.push_back(id);
            labels.push_back(i < 2 ? -100 : id);
        }
        text +=
            fmt::format("{{\"input_ids\": [{}], \"labels\": [{}]}}\n", fmt::join(ids, ", "), fmt::join(labels, ", "));
    }
    return text;
}

/// Rows behind one of two beginnings of 80 tokens; the last two tokens of a beginning are learned, too.
inline std::string rows_behind_beginnings(int64_t rows) {
    const Philox random{9, 0};
    uint64_t at = 0;
    const auto draw = [&](int64_t n) { return static_cast<int64_t>(random.below(at++, static_cast<uint64_t>(n))); };
    std::vector<std::vector<int64_t>> beginnings(2, std::vector<int64_t>(80));
    for (auto& beginning : beginnings)
        for (int64_t& id : beginning) id = draw(chain_vocab);
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
        std::vector<int64_t> ids = beginnings[static_cast<size_t>(row % 2)], labels(78, -100);
        for (int64_t n = 1 + draw(9); n > 0; --n) ids.push_back(draw(chain_vocab));
        labels.insert(labels.end(), ids.begin() + 78, ids.end());
        text +=
            fmt::format("{{\"input_ids\": [{}], \"labels\": [{}]}}\n", fmt::join(ids, ", "), fmt::join(labels, ", "));
    }
    return text;
}

/// Pairs with a prompt of two tokens. The chosen answer follows the chain of chain_rows(), the rejected answer another.
inline std::string pair_rows(int64_t rows, uint64_t seed = 1) {
    const Philox random{seed, 3};
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
        const auto draw = static_cast<uint64_t>(4 * row);
        const auto chain = [&](int64_t first, int64_t length, int64_t factor) {
            std::vector<int64_t> ids;
            for (int64_t id = first; std::ssize(ids) < length; id = (factor * id + 3) % chain_vocab) ids.push_back(id);
            return ids;
        };
        const auto first = static_cast<int64_t>(random.below(draw, chain_vocab));
        const std::vector<int64_t> prompt = chain(first, 2, 7);
        const int64_t next = (7 * prompt[1] + 3) % chain_vocab;
        const auto length = [&](uint64_t i) { return 3 + static_cast<int64_t>(random.below(draw + i, 20)); };
        text +=
            fmt::format("{{\"prompt_input_ids\": [{}], \"chosen_input_ids\": [{}], \"rejected_input_ids\": [{}]}}\n",
                        fmt::join(prompt, ", "), fmt::join(chain(next, length(1), 7), ", "),
                        fmt::join(chain((next + 1) % chain_vocab, length(2), 5), ", "));
    }
    return text;
}

/// The value that a run logged under `key` at a step.
inline double value_at(const std::vector<Json>& log, const std::string& key, int64_t step) {
    for (const Json& line : log)
        if (line.at("step") == step && line.contains(key)) return line.at(key);
    ADD_FAILURE() << "no " << key << " at step " << step;
    return std::nan("");
}

/// Runs `body` with stdout and stderr redirected to a file; returns what it printed.
inline std::string quietly(const std::function<void()>& body) {
    struct Redirection {
        FILE* file = std::tmpfile();
        int out = dup(1), err = dup(2);
        Redirection() { redirect(fileno(file), fileno(file)); }
        ~Redirection() {
            redirect(out, err);
            close(out);
            close(err);
            std::fclose(file);
        }
        static void redirect(int to_out, int to_err) {
            std::fflush(nullptr);
            dup2(to_out, 1);
            dup2(to_err, 2);
        }
    } redirection;
    body();
    std::fflush(nullptr);
    return content_of(redirection.file);
}

/// Trains in this process; returns what was printed.
inline std::string train(const std::string& config, const std::vector<std::string>& arguments = {}) {
    return quietly([&] { Trainer(open_session(load_config(config, arguments))).run(); });
}

/// Weights and moments of a checkpoint as one text of bytes, put together from the files of any number of ranks.
inline std::string state_of_checkpoint(const std::string& folder) {
    std::map<std::pair<std::string, int64_t>, std::string> slices;  // by name and first element
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
        if (file.path().extension() != ".h5") continue;
        const Hdf5Reader reader(file.path());
        const std::vector<int64_t> ends = reader.read_all<int64_t>("slices");
        const int64_t elements = reader.count("weights");
        for (const std::string name :
             {"weights", "adamw/m", "adamw/v", "adamw/m_units", "adamw/v_units", "muon/m", "muon/v"}) {
            if (!reader.has(name)) continue;
            std::string values(static_cast<size_t>(reader.count(name)) * bytes_of(reader.dtype(name)), 0);
            reader.read(name, Tensor(values.data(), reader.dtype(name), {reader.count(name)}));
            size_t next = 0;
            for (size_t i = 0; i + 1 < ends.size(); i += 2) {
                const auto bytes =
                    static_cast<size_t>(ends[i + 1] - ends[i]) * values.size() / static_cast<size_t>(elements);
                slices[{name, ends[i]}] += values.substr(next, bytes);
                next += bytes;
            }
        }
    }
    std::string all;
    for (const auto& [place, bytes] : slices) all += bytes;
    return all;
}

/// Result of a finished run: every bit of its state, the model, and its log without timings.
struct RunResult {
    std::string state, model;
    std::vector<Json> log;
    bool operator==(const RunResult&) const = default;
};

inline std::vector<Json> read_log(const std::string& output_dir) {
    std::vector<Json> log;
    std::ifstream file(output_dir + "/metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
        Json json = parse_json(line, output_dir);
        for (const char* key : {"tokens_per_second", "samples_per_second", "step_seconds", "eval_tokens_per_second",
                                "eval_runtime", "host_memory_gib", "gpu_memory_gib"})
            json.erase(key);
        log.push_back(json);
    }
    return log;
}

inline RunResult result_of(const std::string& output_dir) {
    const std::vector<int64_t> steps = checkpoint_steps(output_dir);
    if (steps.empty()) return {};
    return {state_of_checkpoint(checkpoint_folder(output_dir, steps.back())), slurp(output_dir + "/model.safetensors"),
            read_log(output_dir)};
}

/// Compares the bytes of files with EXPECT_TRUE, because printing a difference would take megabytes.
inline void expect_equal(const RunResult& found, const RunResult& expected, const std::string& what) {
    EXPECT_FALSE(expected.state.empty());
    EXPECT_TRUE(found.state == expected.state) << what << ": weights or moments differ";
    EXPECT_TRUE(found.model == expected.model) << what << ": the exported model differs";
    EXPECT_EQ(found.log, expected.log) << what;
}

/// The step of the newest checkpoint; 0 without one.
inline int64_t last_step(const std::string& output_dir) {
    const std::vector<int64_t> steps = checkpoint_steps(output_dir);
    return steps.empty() ? 0 : steps.back();
}

/// A folder with train.jsonl and config.yaml for a tiny model. `settings`: more lines of the config.
class RunTest : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        spill(path("train.jsonl"), chain_rows(160));
        write_config();
    }
    /// A config that starts from the model in "base", with keys of its own and those of the length of a run.
    void write_tuning(const std::string& keys,
                      const std::string& length = "max_steps: 8\nval_size: 16\neval_steps: 4\n") const {
        spill(config(), fmt::format("model_name_or_path: {}\ndatasets: [{{path: {}}}]\nmax_length: 48\n"
                                    "packing_length: 64\nprepared_path: {}\nthreads: 1\nreport_to: [jsonl]\n"
                                    "logging_steps: 1\nlearning_rate: {}\nshare_prefixes: false\n{}{}",
                                    path("base"), path("train.jsonl"), path("prepared"), learning_rate_, length, keys));
    }
    /// Rows of chain_rows() begin alike: the tests of sharing count on it, the others on the number of steps.
    void write_config(const std::string& settings = "", const std::string& name = "config.yaml") const {
        const char* const alone = settings.find("share_prefixes") == settings.npos ? "share_prefixes: false\n" : "";
        spill(path(name), fmt::format("model:\n"
                                      "{}"
                                      "  vocab_size: {}\n"
                                      "datasets:\n"
                                      "  - path: {}\n"
                                      "max_length: 48\n"
                                      "packing_length: 64\n"
                                      "prepared_path: {}\n"
                                      "threads: 1\n"
                                      "report_to: [jsonl]\n"
                                      "{}{}",
                                      shape_, chain_vocab, path("train.jsonl"), path("prepared"), alone, settings));
    }
    std::string config() const { return path("config.yaml"); }
    std::string output(const std::string& name) const { return "output_dir=" + path(name); }
    std::string learning_rate_ = "1e-2";  ///< of write_tuning()
    /// Of the model of write_config().
    std::string shape_ =
        "  hidden_size: 16\n  intermediate_size: 32\n  num_hidden_layers: 2\n  num_attention_heads: 4\n"
        "  num_key_value_heads: 2\n";
};

}  // namespace colonnade
