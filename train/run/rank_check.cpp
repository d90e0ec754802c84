#include "train/run/rank_check.h"

#include <algorithm>
#include <map>

#include "engine/io/json.h"
#include "engine/io/sha256.h"

namespace colonnade {

void require_same(const Ranks& ranks, const Facts& facts) {
    if (!ranks.several()) return;
    const std::vector<std::string> all = ranks.gather("comparison of ranks", Json(facts).dump(-1, ' ', true));
    ranks.together("comparison of ranks", [&] {
        for (int r = 1; r < ranks.size(); ++r) {
            const auto first = Json::parse(all[0]).get<Facts>(),
                       other = Json::parse(all[static_cast<size_t>(r)]).get<Facts>();
            require(first.size() == other.size(), "ranks compare {} and {} facts", first.size(), other.size());
            for (size_t i = 0; i < first.size(); ++i)
                if (first[i] != other[i])
                    fail(Exit::config, "ranks disagree on {}: {} has {}, {} has {}", first[i].first, ranks.name(0),
                         first[i].second, ranks.name(r), other[i].second);
        }
    });
}

Facts facts_of_run(const Config& config) {
    Facts facts = {{"the program (SHA-256 of its file)", sha256_file("/proc/self/exe")}};
    const Facts values = values_shared_by_ranks(config);
    facts.insert(facts.end(), values.begin(), values.end());
    return facts;
}

void require_same_weights(const Ranks& ranks, uint64_t checksum, int64_t step, int64_t agreed) {
    if (!ranks.several()) return;
    const std::vector<std::string> all = ranks.gather("checksum of weights", fmt::format("{:016x}", checksum));
    std::map<std::string, int> votes;
    for (const std::string& sum : all) ++votes[sum];
    if (votes.size() == 1) return;
    const auto most =
        std::max_element(votes.begin(), votes.end(), [](auto& a, auto& b) { return a.second < b.second; });
    // Without a majority, rank 0 counts as right.
    const std::string& right = 2 * most->second > ranks.size() ? most->first : all[0];
    std::vector<std::string> wrong;
    for (int r = 0; r < ranks.size(); ++r)
        if (all[static_cast<size_t>(r)] != right) wrong.push_back(ranks.name(r));
    ranks.together("checksum of weights", [&] {
        fail(Exit::numerics,
             "after step {} the weights of {} differ from those of the others; {}. Memory or a transfer is at fault: "
             "resume from a checkpoint of step {} or before",
             step, fmt::join(wrong, ", "),
             agreed < 0 ? "they never agreed" : fmt::format("after step {} they agreed", agreed),
             std::max<int64_t>(agreed, 0));
    });
}

}  // namespace colonnade
