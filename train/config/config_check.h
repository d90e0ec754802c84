#pragma once
// What no single key can tell: defaults that hang on other keys, and rules between keys.

#include <initializer_list>

#include "train/config/config_keys.h"

namespace colonnade {

/// States rules: expect(holds, the keys it is about, what is wrong otherwise).
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

  private:
    Reading& reading_;
    const std::string& name_;
};

/// Fills in the defaults, then adds a problem for every rule that does not hold. Rules about keys that could not be
/// read are left out. `name` is the place of what is missing altogether.
void settle_config(Config& config, Reading& reading, const std::string& name);

}  // namespace colonnade
