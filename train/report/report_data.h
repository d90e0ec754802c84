#pragma once
// ReportData: everything that a report shows of a run.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "train/report/curve.h"
#include "train/report/report_facts.h"

namespace colonnade {

/// A key of the resolved config, values as YAML.
struct ConfigEntry {
    std::string key{}, value{}, default_value{};
    bool given = false;  ///< the user gave it a value that is not the default
};

/// One start of the run (train/run/run_record.h).
struct StartEntry {
    std::string started{}, ended{}, state{}, reason{}, command{}, program{}, host{};
    int64_t step = 0, resumed_step = 0, ranks = 1;
    std::vector<std::string> changes{};                          ///< of the config, since the checkpoint it resumed
    std::vector<std::pair<std::string, std::string>> machine{};  ///< device, libraries, ...
};

/// A prompt with the model's first and last answer to it.
struct SampleEntry {
    std::string row{}, prompt{}, reference{}, first{}, last{};
    int64_t first_step = 0, last_step = 0;
};

struct SpikeEntry {
    int64_t step = 0;
    double loss = 0, gradient_norm = 0;
    std::vector<std::string> rows{};
};

struct BestEntry {
    std::string metric{};
    CurvePoint at{};
};

struct ReportData {
    std::string folder{};  ///< of the run, as it was given
    std::string name{}, stage{}, finetuning{};
    std::string state = "unknown";  ///< running, killed, finished, stopped, failed
    std::string state_text{};       ///< the same as a sentence
    int64_t step = 0, total_steps = 0;
    double seconds_left = 0;  ///< of a run under way; 0: not known
    ReportFacts facts{};
    std::vector<StartEntry> starts{};
    std::vector<ConfigEntry> config{};
    std::vector<std::pair<std::string, Curve>> metrics{};  ///< in the order of the log
    bool has_log = true;                                   ///< report_to has jsonl
    std::optional<BestEntry> best{};
    std::vector<SpikeEntry> spikes{};  ///< the first ones
    int64_t spike_count = 0;
    std::vector<SampleEntry> samples{};
    std::vector<std::string> warnings{};  ///< the last ones
    int64_t warning_count = 0;
    std::vector<std::string> checkpoints{};                    ///< names of folders
    std::vector<std::pair<std::string, std::string>> files{};  ///< exported model and logs: name, size

    const Curve* metric(const std::string& metric_name) const {
        for (const auto& [name_of_metric, curve] : metrics)
            if (name_of_metric == metric_name) return &curve;
        return nullptr;
    }
};

}  // namespace colonnade
