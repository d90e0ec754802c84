#pragma once
// Rules: defaults that depend on other keys, and conditions that involve several keys.

#include <initializer_list>

#include "train/config/keys.h"

namespace colonnade {

/// Checks conditions: expect(holds, keys involved, message if it does not hold). Conditions on keys that could not be
/// read are skipped. `name` is the place that messages give for a missing key.
class Rules {
  public:
    Rules(Reading& reading, const std::string& name) : reading_(reading), name_(name) {}

    bool given(const char* key) const { return reading_.given.contains(key); }

    template <typename... Args>
    void expect(bool holds, std::initializer_list<const char*> keys, fmt::format_string<Args...> format,
                Args&&... args) {
        if (holds) return;
        std::string where = name_;
        for (const char* key : keys) {
            if (reading_.unreadable.contains(key)) return;
            const auto place = reading_.given.find(key);
            if (where == name_ && place != reading_.given.end()) where = place->second;
        }
        reading_.problems.add(where, format, std::forward<Args>(args)...);
    }

    /// A line for the user about a key that is given but has no effect.
    template <typename... Args>
    void note(const char* key, fmt::format_string<Args...> format, Args&&... args) {
        reading_.notices.push_back(reading_.given.at(key) + ": " + fmt::format(format, std::forward<Args>(args)...));
    }

  private:
    Reading& reading_;
    const std::string& name_;
};

/// Settles the defaults, then adds a problem for every rule that does not hold. `name` is the place that messages give
/// for a missing key.
void settle_config(Config& config, Reading& reading, const std::string& name);

}  // namespace colonnade
