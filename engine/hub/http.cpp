#include "engine/hub/http.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>

#include "engine/device/error.h"
#include "engine/hub/opened_curl.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

/// What the callbacks of one transfer share.
struct Transfer {
    CURL* curl;
    const HttpRequest& request;
    HttpAnswer answer{};
    std::exception_ptr error{};
};

size_t on_header(char* data, size_t, size_t bytes, void* context) {
    Transfer& t = *static_cast<Transfer*>(context);
    const std::string_view line(data, bytes);
    if (line.starts_with("HTTP/")) {
        t.answer.headers.clear();
        return bytes;
    }
    const size_t colon = line.find(':');
    if (colon == line.npos) return bytes;
    std::string name(line.substr(0, colon)), value(line.substr(colon + 1));
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    value.erase(0, value.find_first_not_of(" \t"));
    value.erase(value.find_last_not_of(" \t\r\n") + 1);
    t.answer.headers[name] = value;
    return bytes;
}

size_t on_body(char* data, size_t, size_t bytes, void* context) {
    Transfer& t = *static_cast<Transfer*>(context);
    try {
        curl_easy_getinfo(t.curl, CURLINFO_RESPONSE_CODE, &t.answer.status);
        if (t.request.sink && (t.answer.status == 200 || t.answer.status == 206)) {
            t.request.sink(t.answer, {data, bytes});
            return bytes;
        }
        if (t.answer.body.size() + bytes > limits::hub_answer_bytes)
            fail(Exit::data, "{}: the answer has more than {} bytes", t.request.url, limits::hub_answer_bytes);
        t.answer.body.append(data, bytes);
        return bytes;
    } catch (...) {
        t.error = std::current_exception();
        return 0;  // ends the transfer
    }
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    const Transfer& t = *static_cast<Transfer*>(context);
    return t.request.cancelled && t.request.cancelled() ? 1 : 0;
}

bool may_recover(CURLcode code) {
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
        case CURLE_OPERATION_TIMEDOUT:
        case CURLE_PARTIAL_FILE:
        case CURLE_GOT_NOTHING:
        case CURLE_RECV_ERROR:
        case CURLE_SEND_ERROR:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_HTTP2:
        case CURLE_HTTP2_STREAM:
            return true;
        default:
            return false;
    }
}

bool is_busy(long status) {
    return status == 408 || status == 429 || (status >= 500 && status <= 504);
}

template <typename Value>
void set(CURL* curl, CURLoption option, Value value) {
    const CURLcode code = curl_easy_setopt(curl, option, value);
    require(code == CURLE_OK, "curl refuses option {}: {}", static_cast<int>(option), curl_easy_strerror(code));
}

}  // namespace

std::string HttpAnswer::header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
}

double HttpAnswer::asked_to_wait() const {
    double seconds = std::strtod(header("retry-after").c_str(), nullptr);
    const std::string limit = header("ratelimit");  // "resolvers";r=0;t=55
    if (const size_t at = limit.find("t="); status == 429 && !(seconds > 0) && at != limit.npos)
        seconds = std::strtod(limit.c_str() + at + 2, nullptr) + 1;
    return seconds > 0 ? seconds : 0;
}

Http::Http(const HubSettings& settings) : settings_(settings) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    curl_ = curl_easy_init();
    require(curl_ != nullptr, "curl cannot start");
}

Http::~Http() {
    curl_easy_cleanup(curl_);
}

HttpAnswer Http::send(const HttpRequest& request) {
    CURL* const curl = curl_;
    curl_easy_reset(curl);  // connections stay
    Transfer transfer{.curl = curl, .request = request};
    char reason[CURL_ERROR_SIZE] = "";
    const bool plain = settings_.endpoint.starts_with("http://");
    const long protocols = plain ? CURLPROTO_HTTP | CURLPROTO_HTTPS : CURLPROTO_HTTPS;
    curl_slist* headers = nullptr;
    set(curl, CURLOPT_URL, request.url.c_str());
    set(curl, CURLOPT_PROTOCOLS, protocols);
    set(curl, CURLOPT_REDIR_PROTOCOLS, protocols);
    set(curl, CURLOPT_FOLLOWLOCATION, 1L);
    set(curl, CURLOPT_MAXREDIRS, limits::hub_redirects);
    set(curl, CURLOPT_NOSIGNAL, 1L);
    set(curl, CURLOPT_USERAGENT, "colonnade");
    set(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(1000 * settings_.connect_seconds));
    set(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(settings_.silence_seconds));
    set(curl, CURLOPT_ERRORBUFFER, reason);
    set(curl, CURLOPT_HEADERFUNCTION, on_header);
    set(curl, CURLOPT_HEADERDATA, &transfer);
    set(curl, CURLOPT_WRITEFUNCTION, on_body);
    set(curl, CURLOPT_WRITEDATA, &transfer);
    set(curl, CURLOPT_NOPROGRESS, 0L);
    set(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    set(curl, CURLOPT_XFERINFODATA, &transfer);
    const bool own_host = request.url.starts_with(settings_.endpoint + "/");
    if (!settings_.token.empty() && own_host) {
        // Unlike a header of our own, curl drops this one when a redirect leads to another host, port or protocol.
        set(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        set(curl, CURLOPT_XOAUTH2_BEARER, settings_.token.c_str());
    } else if (!request.user.empty() && own_host) {
        set(curl, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
        set(curl, CURLOPT_USERPWD, request.user.c_str());
    }
    if (request.json) {
        set(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.json->size()));
        set(curl, CURLOPT_POSTFIELDS, request.json->c_str());
        headers = curl_slist_append(headers, "Content-Type: application/json");
    }
    // Not CURLOPT_RESUME_FROM, for which an answer with the whole file is an error.
    const std::string range = fmt::format("Range: bytes={}-", request.from);
    if (request.from > 0) headers = curl_slist_append(headers, range.c_str());
    if (request.sink) headers = curl_slist_append(headers, "Accept-Encoding: identity");
    set(curl, CURLOPT_HTTPHEADER, headers);
    const CURLcode code = curl_easy_perform(curl);
    curl_slist_free_all(headers);
    if (transfer.error) std::rethrow_exception(transfer.error);
    HttpAnswer answer = std::move(transfer.answer);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
    if (code != CURLE_OK) {
        answer.failure = *reason ? reason : curl_easy_strerror(code);
        if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
            answer.failure += "; a machine without certificates needs the package ca-certificates";
    }
    answer.may_recover = may_recover(code) || (code == CURLE_OK && is_busy(answer.status));
    return answer;
}

std::string http_library() {
    if (!has_curl()) return "";
    const std::string all = curl_version();  // "libcurl/7.88.1 OpenSSL/3.0.16 zlib/1.2.13 ..."
    return all.substr(0, all.find(' '));
}

std::string url_encoded(std::string_view text, std::string_view keep) {
    std::string encoded;
    for (const char c : text) {
        const bool plain = std::isalnum(static_cast<unsigned char>(c)) ||
                           std::string_view("-._~").find(c) != text.npos || keep.find(c) != keep.npos;
        if (plain)
            encoded += c;
        else
            encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    return encoded;
}

double wait_before_retry(const HubSettings& settings, const HttpAnswer& answer, int tried) {
    const double asked = answer.asked_to_wait();
    if (asked > limits::hub_wait_seconds)
        fail(Exit::data, "{}: asks to wait for {:.0f} seconds (status {}); try again later{}", settings.endpoint, asked,
             answer.status, settings.token.empty() ? ", or set HF_TOKEN, which has a higher limit" : "");
    return asked > 0 ? asked : settings.first_wait * (1 << std::min(tried - 1, 3));
}

}  // namespace colonnade
