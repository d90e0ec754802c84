#pragma once
// Configs as text, for tests of reading them.

#include <gtest/gtest.h>

#include "train/config/config.h"

namespace colonnade {

inline const std::string minimal =
    "model_name_or_path: models/m\n"
    "datasets: [{path: a.jsonl}]\n"
    "output_dir: out\n";

inline Config read(const std::string& yaml, const std::vector<std::string>& arguments = {}) {
    return parse_config(yaml, "c.yaml", arguments).config;
}

/// The message of the Exit::config error that reading throws; it may have one line per problem.
inline std::string problems(const std::string& yaml, const std::vector<std::string>& arguments = {}) {
    try {
        read(yaml, arguments);
    } catch (const Error& e) {
        EXPECT_EQ(e.exit(), Exit::config) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "no error:\n" << yaml;
    return "";
}

struct Bad {
    std::string added;    // follows `minimal`, so that its first line is line 4
    std::string message;  // the whole message
};

inline void expect_problems(const std::vector<Bad>& cases) {
    for (const Bad& bad : cases) EXPECT_EQ(problems(minimal + bad.added), bad.message);
}

}  // namespace colonnade
