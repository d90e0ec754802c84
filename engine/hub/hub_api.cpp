#include "engine/hub/hub_api.h"

#include <chrono>
#include <cmath>
#include <set>

#include "engine/device/error.h"
#include "engine/device/timing.h"
#include "engine/io/json_keys.h"

namespace colonnade {
namespace {

JsonLimits answer_limits() {
    return {.bytes = limits::hub_answer_bytes, .depth = limits::hub_json_depth};
}

Json parse_answer(std::string_view body, const std::string& where) {
    const size_t first = body.find_first_not_of(" \t\r\n");
    if (first != body.npos && body[first] == '<')
        fail(Exit::data,
             "{}: a web page came instead of the hub's answer; check HF_ENDPOINT and the network's proxy or login",
             where);
    return parse_json(body, where, answer_limits());
}

std::string hash_of(const JsonKeys& keys, const char* key, size_t digits) {
    std::string hash = keys.text(key);
    if (!is_hex(hash, digits)) keys.refuse(key, fmt::format("{} lower-case hexadecimal digits", digits));
    return hash;
}

uint64_t size_of(const JsonKeys& keys) {
    const double most = static_cast<double>(limits::hub_file_bytes);
    return static_cast<uint64_t>(keys.integer("size", {}, {.low = 0, .below = most}));
}

HubFile parse_entry(const Json& entry, const std::string& where) {
    const JsonKeys keys(entry, where);
    HubFile file{.path = keys.text("path")};
    if (!is_inside(file.path)) keys.refuse("path", "a path inside the repository");
    file.size = size_of(keys);
    file.oid = hash_of(keys, "oid", 40);
    if (const Json* lfs = keys.find("lfs")) {
        const JsonKeys of_lfs(*lfs, where + ": lfs");
        file.sha256 = hash_of(of_lfs, "oid", 64);
        file.size = size_of(of_lfs);
    }
    if (const std::string xet = keys.text("xetHash", ""); is_hex(xet, 64)) file.xet_hash = xet;
    return file;
}

/// The address of the next page: <...>; rel="next".
std::string next_page(const HttpAnswer& answer) {
    const std::string link = answer.header("link");
    const size_t rel = link.find("rel=\"next\"");
    if (rel == link.npos) return {};
    const size_t begin = link.rfind('<', rel), end = link.find('>', begin == link.npos ? 0 : begin);
    return begin == link.npos || end == link.npos ? "" : link.substr(begin + 1, end - begin - 1);
}

}  // namespace

std::vector<HubFile> parse_tree(std::string_view json, const std::string& where) {
    const Json entries = parse_answer(json, where);
    if (!entries.is_array()) fail(Exit::data, "{}: expected a list of files", where);
    std::vector<HubFile> files;
    for (size_t i = 0; i < entries.size(); ++i) {
        const std::string place = fmt::format("{}: entry {}", where, i);
        if (JsonKeys(entries[i], place).text("type") == "file") files.push_back(parse_entry(entries[i], place));
    }
    return files;
}

HubApi::HubApi(const HubSettings& settings, HubName name)
    : settings_(settings), name_(std::move(name)), http_(settings) {}

HttpAnswer HubApi::get(const std::string& url, int tries) {
    for (int tried = 1;; ++tried) {
        HttpAnswer answer = http_.send({.url = url});
        if (answer.good() || !answer.may_recover || tried >= tries) return answer;
        const double wait = wait_before_retry(settings_, answer, tried);
        settings_.say(fmt::format("{}: {}; trying again in {:.0f} s", url,
                                  answer.status ? fmt::format("status {}", answer.status) : answer.failure, wait));
        sleep_for(wait);
    }
}

std::optional<std::string> HubApi::find_commit(int tries, std::string& failure) {
    const char* const kind = name_.kind == RepositoryKind::model ? "models" : "datasets";
    const std::string url = fmt::format("{}/api/{}/{}/revision/{}", settings_.endpoint, kind, name_.repository,
                                        url_encoded(name_.revision));
    const HttpAnswer answer = get(url, tries);
    if (answer.may_recover) {
        failure = answer.status ? fmt::format("status {}", answer.status) : answer.failure;
        return {};
    }
    if (!answer.good()) refuse(answer, "revision " + name_.revision);
    const Json json = parse_answer(answer.body, url);
    return hash_of(JsonKeys(json, url), "sha", 40);
}

std::vector<HubFile> HubApi::tree(const std::string& commit) {
    const char* const kind = name_.kind == RepositoryKind::model ? "models" : "datasets";
    std::string url = fmt::format("{}/api/{}/{}/tree/{}?recursive=true&expand=false", settings_.endpoint, kind,
                                  name_.repository, commit);
    std::vector<HubFile> files;
    std::set<std::string> seen;
    for (size_t pages = 1; !url.empty(); ++pages) {
        if (pages > limits::hub_pages)
            fail(Exit::data, "{}: the list of files has more than {} pages", url, limits::hub_pages);
        const HttpAnswer answer = get(url, settings_.tries);
        if (!answer.good()) refuse(answer, "its list of files");
        for (HubFile& file : parse_tree(answer.body, url)) {
            if (!seen.insert(file.path).second) fail(Exit::data, "{}: lists {} twice", url, file.path);
            files.push_back(std::move(file));
        }
        if (files.size() > limits::hub_files)
            fail(Exit::data, "{}: the repository has more than {} files", url, limits::hub_files);
        std::string next = next_page(answer);
        if (next.starts_with('/')) next = settings_.endpoint + next;
        if (!next.empty() && !next.starts_with(settings_.endpoint + "/"))
            fail(Exit::data, "{}: the next page is at {}, expected one of {}", url, next, settings_.endpoint);
        url = next;
    }
    return files;
}

std::string HubApi::file_url(const std::string& commit, const std::string& path) const {
    return fmt::format("{}/{}{}/resolve/{}/{}", settings_.endpoint,
                       name_.kind == RepositoryKind::model ? "" : "datasets/", name_.repository, commit,
                       url_encoded(path, "/"));
}

void HubApi::refuse(const HttpAnswer& answer, const std::string& what) const {
    const bool model = name_.kind == RepositoryKind::model;
    const std::string page = fmt::format("{}/{}{}", settings_.endpoint, model ? "" : "datasets/", name_.repository);
    const std::string code = answer.header("x-error-code"), message = answer.header("x-error-message");
    const std::string& token = settings_.token_source;
    const std::string sent = token.empty() ? "no token was sent: set HF_TOKEN" : "the token of " + token + " was sent";
    const auto has = [&](const char* part) { return message.find(part) != message.npos; };
    if (!answer.failure.empty())
        fail(Exit::data, "{}: cannot download {}: {}; what is there stays, the next start continues", page, what,
             answer.failure);
    if (answer.status == 401 && (has("Invalid credentials") || has("Invalid username")) && !token.empty())
        fail(Exit::data, "{}: the hub does not know the token of {}; give a valid one, or none", page, token);
    if (code == "GatedRepo" || ((answer.status == 401 || answer.status == 403) && (has("gated") || has("restricted"))))
        fail(Exit::data, "{}: is gated: accept its terms on that page, and use a token of that account ({})", page,
             sent);
    if (answer.status == 403 && has("disabled")) fail(Exit::data, "{}: the hub has disabled it: {}", page, message);
    if (code == "RevisionNotFound")
        fail(Exit::data, "{}: has no revision '{}'; {}/tree/main shows its branches and tags", page, name_.revision,
             page);
    if (code == "EntryNotFound") fail(Exit::data, "{}: has no file {} at revision {}", page, what, name_.revision);
    if (code == "RepoNotFound" || answer.status == 401 || answer.status == 404)
        fail(Exit::data, "{}: neither a path of this machine nor a {} on the hub, or a private one ({})", name_.text(),
             model ? "model" : "data set", sent + "; asked was " + settings_.endpoint);
    if (answer.status == 403)
        fail(Exit::data, "{}: access is refused{}{} ({})", page, message.empty() ? "" : ": ", message, sent);
    fail(Exit::data, "{}: cannot download {}: the hub answers with status {}{}{}{}", page, what, answer.status,
         message.empty() ? "" : ": ", message,
         answer.may_recover ? "; try again later, what is there stays and the next start continues" : "");
}

}  // namespace colonnade
