// bench_prepare: compares the time to prepare a data set with that of encoding alone. Two jobs alternate on the same
// number of threads:
//
//     prepare          build_store into a temporary folder: hash, read, parse, template, encode, append, write
//     encoding alone   the tokenizer once on every text of every row (contents of messages, prompts, completions),
//                      already in memory; no template; ids are counted and dropped. For a SentencePiece model it is the
//                      library's own SentencePieceProcessor::Encode
//
// docs/benchmarks.md explains the ratio.

#include <omp.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <thread>

#include "data/rows/rows.h"
#include "data/store/build_store.h"
#include "engine/device/human_units.h"
#include "engine/device/timing.h"
#include "engine/io/files.h"
#include "engine/io/json.h"
#include "engine/program/command_line.h"
#include "train/run/local_names.h"
#include "train/run/machine.h"
#include "train/run/run_arguments.h"
#include "train/run/run_model.h"

namespace colonnade {
namespace {

struct Options {
    std::string json;
    int runs = 5;
};

struct Time {
    double seconds = 0, cpu_seconds = 0;
};

template <typename Work>
Time timed(Work&& work) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t cpu = std::clock();
    work();
    return {seconds_since(start), static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC};
}

Time median_time(const std::vector<Time>& times) {
    std::vector<double> seconds, cpu_seconds;
    for (const Time& t : times) seconds.push_back(t.seconds), cpu_seconds.push_back(t.cpu_seconds);
    return {median(seconds), median(cpu_seconds)};
}

/// Every text of the data sets, in order.
std::vector<std::string> texts_of(const std::vector<DatasetSpec>& datasets, RowKind kind) {
    std::vector<std::string> texts;
    for (const DatasetSpec& spec : datasets) {
        RowReader reader(spec, kind);
        const auto add = [&](Row& row) {
            for (Message& message : row.messages) texts.push_back(std::move(message.content));
            if (row.prompt) texts.push_back(std::move(*row.prompt));
            if (row.completion) texts.push_back(std::move(*row.completion));
        };
        for (Row row; reader.next(row);) {
            add(row);
            for (Row& answer : row.answers) add(answer);
        }
    }
    return texts;
}

/// Calls encode(text), made for each thread by make(), on every text; returns the number of ids.
template <typename Make>
int64_t encode_all(const std::vector<std::string>& texts, int threads, Make&& make) {
    constexpr size_t turn = 1024;  // number of texts that a thread takes at a time
    std::atomic<size_t> next{0};
    std::atomic<int64_t> ids_seen{0};
    {
        std::vector<std::jthread> workers;
        workers.reserve(static_cast<size_t>(threads));
        for (int i = 0; i < threads; ++i)
            workers.emplace_back([&] {
                auto encode = make();
                int64_t seen = 0;
                for (size_t begin; (begin = next.fetch_add(turn)) < texts.size();)
                    for (size_t t = begin; t < std::min(begin + turn, texts.size()); ++t) seen += encode(texts[t]);
                ids_seen += seen;
            });
    }
    return ids_seen;
}

int64_t encode_alone(const Tokenizer& tokenizer, const std::vector<std::string>& texts, int threads) {
    if (!tokenizer.path().ends_with(".model"))
        return encode_all(texts, threads, [&] {
            return [&, cache = TokenCache()](const std::string& text) mutable {
                return std::ssize(tokenizer.encode(text, Spelled::text, TextStart::document, cache).ids);
            };
        });
    sentencepiece::SentencePieceProcessor processor;
    if (!processor.Load(tokenizer.path()).ok()) fail(Exit::data, "{}: SentencePiece cannot load it", tokenizer.path());
    return encode_all(texts, threads, [&] {
        return [&, ids = std::vector<int>()](const std::string& text) mutable {
            if (!processor.Encode(text, &ids).ok()) std::terminate();
            return std::ssize(ids);
        };
    });
}

/// Builds the store of the training data from scratch, in a temporary folder.
StoreResult prepare(StoreRequest request) {
    std::error_code error;
    const std::filesystem::path temporary = std::filesystem::temp_directory_path(error);
    if (error) fail(Exit::config, "TMPDIR: expected a folder: {}", error.message());
    const FolderCommit folder(temporary / "bench_prepare");
    request.folder = folder.folder();
    return build_store(request);
}

Json measure(const Config& config, int runs) {
    const RunText run_text = load_text(config);
    const std::shared_ptr<const Encoder> encoder = make_encoder(config, run_text, 0);
    const std::shared_ptr<const Tokenizer> tokenizer = encoder->tokenizer();
    if (!tokenizer) fail(Exit::config, "the rows are already tokenised: there is nothing to measure");
    StoreRequest request;
    request.datasets = config.datasets;
    request.chat_templates = chat_templates(config, run_text, config.datasets);
    request.rows = config.rows();
    request.tokenizer = tokenizer;
    request.encode = encoder->options();
    request.rewards = reward_settings(config);
    request.threads = config.dataset_num_proc ? static_cast<int>(config.dataset_num_proc) : omp_get_max_threads();
    request.progress.write = [](std::string_view) {};
    const std::vector<std::string> texts = texts_of(config.datasets, config.rows());
    size_t bytes = 0;
    for (const std::string& text : texts) bytes += text.size();

    std::vector<Time> ours, theirs;
    std::vector<double> ratios;
    int64_t samples = 0, tokens = 0, ids = 0;
    for (int run = 0; run < runs; ++run) {
        ours.push_back(timed([&] {
            const StoreResult result = prepare(request);
            samples = result.store.size();
            tokens = result.store.tokens();
        }));
        theirs.push_back(timed([&] { ids = encode_alone(*tokenizer, texts, request.threads); }));
        ratios.push_back(ours.back().seconds / theirs.back().seconds);
        fmt::print(stderr, "run {}: prepare {:.2f} s ({:.2f} s of CPU time), encoding alone {:.2f} s ({:.2f} s)\n",
                   run + 1, ours.back().seconds, ours.back().cpu_seconds, theirs.back().seconds,
                   theirs.back().cpu_seconds);
    }
    const Time a = median_time(ours), b = median_time(theirs);
    return {{"threads", request.threads},
            {"runs", runs},
            {"samples", samples},
            {"tokens", tokens},
            {"texts", texts.size()},
            {"text_bytes", bytes},
            {"encoding_ids", ids},
            {"prepare_seconds", a.seconds},
            {"prepare_cpu_seconds", a.cpu_seconds},
            {"encoding_seconds", b.seconds},
            {"encoding_cpu_seconds", b.cpu_seconds},
            {"ratio", median(ratios)},
            {"cpu_ratio", a.cpu_seconds / b.cpu_seconds}};
}

void print(const Json& r) {
    const auto number = [&](const char* key) { return r[key].get<double>(); };
    fmt::print("{} texts, {:.1f} MiB, {} threads, medians of {} runs\n", number("texts"),
               number("text_bytes") / (1 << 20), number("threads"), number("runs"));
    fmt::print("{:<15}{:>8.2f} s{:>8.2f} s of CPU time, {} samples, {} tokens\n", "prepare", number("prepare_seconds"),
               number("prepare_cpu_seconds"), number("samples"), human_count(number("tokens")));
    fmt::print("{:<15}{:>8.2f} s{:>8.2f} s of CPU time, {} ids\n", "encoding alone", number("encoding_seconds"),
               number("encoding_cpu_seconds"), human_count(number("encoding_ids")));
    const auto speed = [&](const char* key) { return number("text_bytes") / number(key) / 1e6; };
    fmt::print("{:<15}{:>8.1f} MB/s of text, {:.1f} MB per second of CPU time; encoding alone {:.1f} and {:.1f}\n",
               "speed", speed("prepare_seconds"), speed("prepare_cpu_seconds"), speed("encoding_seconds"),
               speed("encoding_cpu_seconds"));
    fmt::print("{:<15}{:>8.3f}  {:>8.3f}\n", "ratio", number("ratio"), number("cpu_ratio"));
}

}  // namespace

Work bench_prepare_command(CLI::App& app) {
    const auto o = std::make_shared<Options>();
    app.add_option("--runs", o->runs, "runs of each job; figures are medians")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--json", o->json, "write the results to this file, or to stdout if -")->type_name("FILE");
    app.allow_extras();
    return [o, &app] {
        Config config = load_run(split_run_arguments(app.remaining())).config;
        for (const std::string& notice : resolve_names(config)) fmt::print(stderr, "note: {}\n", notice);
        config.device = DeviceChoice::cpu;
        settle_machine(config);
        const Json report = measure(config, o->runs);
        if (o->json == "-")
            fmt::print("{}\n", report.dump(2));
        else
            print(report);
        if (!o->json.empty() && o->json != "-") write_file_atomically(o->json, report.dump(2) + "\n");
        return 0;
    };
}

}  // namespace colonnade
