#pragma once
// Settings of a hub, from the environment variables that Hugging Face's programs read:
//
//     HF_ENDPOINT          address of the hub; https://huggingface.co
//     HF_TOKEN             else HUGGING_FACE_HUB_TOKEN, else the file HF_TOKEN_PATH or $HF_HOME/token; not sent if
//                          HF_HUB_DISABLE_IMPLICIT_TOKEN is on
//     HF_HUB_CACHE         else HUGGINGFACE_HUB_CACHE, else $HF_HOME/hub
//     HF_HOME              ${XDG_CACHE_HOME:-~/.cache}/huggingface
//     HF_HUB_OFFLINE       or TRANSFORMERS_OFFLINE: 1, ON, YES or TRUE: no connection is made
//     HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_ETAG_TIMEOUT   seconds: of silence; to connect; 10 each

#include <functional>
#include <string>
#include <string_view>

#include "engine/io/progress.h"

namespace colonnade {

struct HubSettings {
    std::string endpoint = "https://huggingface.co";  ///< without a slash at the end
    std::string cache;
    std::string token, token_source;  ///< empty: none
    bool offline = false;
    double connect_seconds = 10, silence_seconds = 10;
    int tries = 5;                           ///< in a row without a new byte
    double first_wait = 1;                   ///< seconds, then 2, 4, 8 times as long
    std::function<void(std::string)> say{};  ///< for the user, one line each; the default is stderr
    ProgressOptions progress{};
};

/// Throws Exit::config for a value that cannot be used.
HubSettings hub_settings();

}  // namespace colonnade
