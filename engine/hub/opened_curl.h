#pragma once
// libcurl: linked, or opened at the first request (engine/device/opened_library.h).

#define CURL_DISABLE_DEPRECATION  // of CURLOPT_PROTOCOLS: its successor is unknown to the libcurl of Ubuntu 22.04
#include <curl/curl.h>

#ifdef COLONNADE_OPENS_LIBRARIES
#include "engine/device/opened_library.h"

#undef curl_easy_getinfo  // macros that count arguments
#undef curl_easy_setopt

namespace colonnade {

inline OpenedLibrary& curl_library() {
    static OpenedLibrary library({.name = "libcurl",
                                  .variable = "COLONNADE_CURL",
                                  .files = {"libcurl.so.4", "libcurl-gnutls.so.4"},
                                  .remedy = "Names on a hub and trackers on the network need it: install the package "
                                            "libcurl4 (and ca-certificates)"});
    return library;
}

inline bool has_curl() {
    return curl_library().opens();
}

COLONNADE_OPENED(curl_library, curl_easy_cleanup);
COLONNADE_OPENED(curl_library, curl_easy_getinfo);
COLONNADE_OPENED(curl_library, curl_easy_init);
COLONNADE_OPENED(curl_library, curl_easy_perform);
COLONNADE_OPENED(curl_library, curl_easy_reset);
COLONNADE_OPENED(curl_library, curl_easy_setopt);
COLONNADE_OPENED(curl_library, curl_easy_strerror);
COLONNADE_OPENED(curl_library, curl_global_init);
COLONNADE_OPENED(curl_library, curl_slist_append);
COLONNADE_OPENED(curl_library, curl_slist_free_all);
COLONNADE_OPENED(curl_library, curl_version);

}  // namespace colonnade
#else

namespace colonnade {
inline bool has_curl() {
    return true;
}
}  // namespace colonnade
#endif
