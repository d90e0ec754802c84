#include "engine/hub/hub_settings.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/home_path.h"

namespace colonnade {
namespace {

bool is_on(const char* name) {
    std::string value = environment(name);
    std::ranges::transform(value, value.begin(), [](unsigned char c) { return std::toupper(c); });
    return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

double seconds(const char* name, double otherwise) {
    const std::string value = environment(name);
    if (value.empty()) return otherwise;
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    if (*end != '\0' || !(number >= 1 && number <= 86400))
        fail(Exit::config, "{} is '{}', expected seconds from 1 to 86400", name, value);
    return number;
}

std::string home_of_hub() {
    if (const std::string home = environment("HF_HOME"); !home.empty()) return expand_home(home);
    const std::string caches = environment("XDG_CACHE_HOME");
    return (caches.empty() ? expand_home("~/.cache") : expand_home(caches)) + "/huggingface";
}

std::string trimmed(const std::string& text) {
    const size_t begin = text.find_first_not_of(" \t\r\n");
    return begin == text.npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

void find_token(HubSettings& s, const std::string& home) {
    if (is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return;
    for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
        if (s.token.empty()) s.token = trimmed(environment(name)), s.token_source = name;
    if (s.token.empty()) {
        const std::string named = environment("HF_TOKEN_PATH");
        s.token_source = named.empty() ? home + "/token" : expand_home(named);
        std::error_code none;
        if (std::filesystem::is_regular_file(s.token_source, none)) {
            const std::string text = trimmed(read_file(s.token_source, limits::kib * 64));
            s.token = trimmed(text.substr(0, text.find('\n')));
        }
    }
    const auto odd = [](unsigned char c) { return c <= ' ' || c > '~'; };
    if (std::ranges::any_of(s.token, odd))
        fail(Exit::config, "{}: the token holds a space or a character that is not ASCII; it begins with hf_",
             s.token_source);
    if (s.token.empty()) s.token_source.clear();
}

}  // namespace

HubSettings hub_settings() {
    HubSettings s;
    if (const std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) s.endpoint = endpoint;
    while (s.endpoint.ends_with('/')) s.endpoint.pop_back();
    if (!s.endpoint.starts_with("https://") && !s.endpoint.starts_with("http://"))
        fail(Exit::config, "HF_ENDPOINT is '{}', expected an address that begins with https://", s.endpoint);
    const std::string home = home_of_hub();
    s.cache = home + "/hub";
    for (const char* name : {"HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"})
        if (const std::string cache = environment(name); !cache.empty()) s.cache = expand_home(cache);
    find_token(s, home);
    s.offline = is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE");
    s.connect_seconds = seconds("HF_HUB_ETAG_TIMEOUT", s.connect_seconds);
    s.silence_seconds = seconds("HF_HUB_DOWNLOAD_TIMEOUT", s.silence_seconds);
    return s;
}

}  // namespace colonnade
