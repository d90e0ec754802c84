#pragma once
// Http: requests by libcurl. The token goes to the endpoint alone: neither to another host that it redirects to, nor
// over plain http if the endpoint has https.

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "engine/hub/hub_settings.h"

namespace colonnade {

struct HttpAnswer {
    long status = 0;                               ///< 0: there was no answer
    std::map<std::string, std::string> headers{};  ///< of the last answer; names in lower case
    std::string body{};                            ///< unless a sink took it
    std::string failure{};                         ///< of the transfer; empty: it is complete
    bool may_recover = false;                      ///< another try may help

    bool good() const { return failure.empty() && (status == 200 || status == 206); }
    std::string header(const std::string& name) const;
    /// Seconds to wait that the server asks for; 0: it says nothing.
    double asked_to_wait() const;
};

struct HttpRequest {
    std::string url;
    uint64_t from = 0;                  ///< ask for the bytes from here on
    std::optional<std::string> json{};  ///< body of a POST; without it the request is a GET
    std::string user{};                 ///< "name:password", for the endpoint alone, if there is no token
    /// Takes the bytes of an answer 200 or 206; it may throw. Null: they become the body.
    std::function<void(const HttpAnswer&, std::string_view)> sink{};
    std::function<bool()> cancelled{};
};

class Http {
  public:
    /// Throws Exit::config if the build opens libcurl and finds none.
    explicit Http(const HubSettings& settings);
    ~Http();
    Http(const Http&) = delete;
    Http& operator=(const Http&) = delete;

    /// Throws Exit::data if the body has more than limits::hub_answer_bytes.
    HttpAnswer send(const HttpRequest& request);

  private:
    const HubSettings& settings_;
    void* curl_;
};

/// "libcurl/7.88.1": the library in use; empty if there is none.
std::string http_library();

/// Percent-encodes all but letters, digits, - . _ ~ and the characters in `keep`.
std::string url_encoded(std::string_view text, std::string_view keep = "");

/// Waits between tries: as long as the server asks for, else 1, 2, 4, 8 times first_wait. Throws Exit::data if it asks
/// for more than limits::hub_wait_seconds. `tried`: how often, from 1.
double wait_before_retry(const HubSettings& settings, const HttpAnswer& answer, int tried);

}  // namespace colonnade
