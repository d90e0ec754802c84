#include "train/log/mlflow_log.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <limits>

#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/hub/http.h"
#include "engine/io/files.h"
#include "engine/io/home_path.h"
#include "engine/io/json.h"
#include "train/log/record_bytes.h"
#include "train/log/run_id.h"

namespace colonnade {
namespace {

constexpr size_t id_length = 32, most_metrics = 1000, most_params = 100, param_bytes = 500;

int64_t milliseconds() {
    return static_cast<int64_t>(now() * 1000);
}

/// An answer that no other try will change.
struct Refusal {
    std::string cause;
};

}  // namespace

MlflowSettings mlflow_settings() {
    MlflowSettings settings;
    std::string& address = settings.server.endpoint;
    address = environment("MLFLOW_TRACKING_URI");
    while (address.ends_with('/')) address.pop_back();
    if (!address.starts_with("http://") && !address.starts_with("https://"))
        fail(Exit::config,
             "report_to: mlflow needs the address of a server in the environment variable MLFLOW_TRACKING_URI, such as "
             "http://localhost:5000; found '{}'",
             address);
    settings.server.token = environment("MLFLOW_TRACKING_TOKEN");
    settings.server.tries = 4;
    if (const std::string name = environment("MLFLOW_TRACKING_USERNAME"); !name.empty())
        settings.user = name + ":" + environment("MLFLOW_TRACKING_PASSWORD");
    return settings;
}

/// The requests of one run.
class MlflowLog::Sender {
  public:
    explicit Sender(MlflowLog& log) : log_(log), http_(log.settings_.server) {}

    /// Finds or makes experiment and run.
    void begin() {
        id_ = log_.resumed_step_ ? kept_id(log_.folder_, id_length) : "";
        if (!id_.empty() && resume()) return;
        Json answer =
            post("runs/create",
                 {{"experiment_id", experiment()}, {"run_name", log_.run_.name}, {"start_time", milliseconds()}});
        id_ = answer.at("run").at("info").at("run_id").get<std::string>();
        keep_id(log_.folder_, id_);
        Json params = Json::array();
        for (const auto& [key, value] : log_.run_.config) {
            std::string text = value.substr(0, param_bytes);
            text.resize(well_formed_prefix(text));
            params.push_back({{"key", key}, {"value", text}});
            if (params.size() == most_params) post_batch("params", std::exchange(params, Json::array()));
        }
        post_batch("params", params);
    }

    void send(const std::vector<Metric>& metrics) {
        Json list = Json::array();
        for (const Metric& m : metrics)
            list.push_back({{"key", m.key}, {"value", m.value}, {"timestamp", m.timestamp}, {"step", m.step}});
        post_batch("metrics", list);
    }

    void end(bool failed) {
        post("runs/update",
             {{"run_id", id_}, {"status", failed ? "FAILED" : "FINISHED"}, {"end_time", milliseconds()}});
    }

  private:
    bool resume() {
        try {
            post("runs/update", {{"run_id", id_}, {"status", "RUNNING"}});
            return true;
        } catch (const Refusal&) {  // another server, or the run was deleted
            return false;
        }
    }

    std::string experiment() {
        const std::string& name = log_.run_.project;
        try {
            const Json answer = request("experiments/get-by-name?experiment_name=" + url_encoded(name), {});
            return answer.at("experiment").at("experiment_id").get<std::string>();
        } catch (const Refusal&) {
            return post("experiments/create", {{"name", name}}).at("experiment_id").get<std::string>();
        }
    }

    void post_batch(const char* what, const Json& list) {
        if (!list.empty()) post("runs/log-batch", {{"run_id", id_}, {what, list}});
    }

    Json post(const std::string& method, const Json& body) {
        return request(method, body.dump(-1, ' ', false, Json::error_handler_t::replace));
    }

    Json request(const std::string& method, const std::optional<std::string>& body) {
        const HubSettings& server = log_.settings_.server;
        HttpRequest request{
            .url = server.endpoint + "/api/2.0/mlflow/" + method, .json = body, .user = log_.settings_.user};
        request.cancelled = [&] { return log_.late(); };
        for (int tried = 1;; ++tried) {
            const HttpAnswer answer = http_.send(request);
            if (answer.good()) return answer.body.empty() ? Json::object() : parse_json(answer.body, request.url);
            const std::string cause = answer.failure.empty()
                                          ? fmt::format("status {}: {}", answer.status, answer.body.substr(0, 300))
                                          : answer.failure;
            if (!answer.may_recover || tried == server.tries || !log_.wait(wait_before_retry(server, answer, tried)))
                throw Refusal{fmt::format("{}: {}", request.url, cause)};
        }
    }

    MlflowLog& log_;
    Http http_;
    std::string id_;
};

MlflowLog::MlflowLog(const std::string& output_dir, RunDescription run, std::optional<int64_t> resumed_step,
                     MlflowSettings settings)
    : folder_(output_dir + "/mlflow"),
      run_(std::move(run)),
      resumed_step_(resumed_step),
      settings_(std::move(settings)),
      thread_([this] { work(); }) {}

MlflowLog::~MlflowLog() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
        failed_ = std::uncaught_exceptions() > 0;
        deadline_ = now() + settings_.closing_seconds;
    }
    changed_.notify_all();
    thread_.join();
    if (const std::string trouble = take_trouble(); !trouble.empty()) fmt::print(stderr, "warning: {}\n", trouble);
}

void MlflowLog::write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
    {
        const std::lock_guard lock(mutex_);
        if (given_up_) return;
        for (const auto& [key, value] : scalars)
            if (std::isfinite(value)) waiting_.push_back({key, value, milliseconds(), step});
        if (waiting_.size() > most_waiting) {
            given_up_ = true;
            trouble_ =
                fmt::format("mlflow: more than {} values wait for {}, which is too slow; it gets no more of them",
                            most_waiting, settings_.server.endpoint);
            waiting_.clear();
        }
    }
    changed_.notify_all();
}

std::string MlflowLog::take_trouble() {
    const std::lock_guard lock(mutex_);
    return std::exchange(trouble_, "");
}

bool MlflowLog::late() {
    const std::lock_guard lock(mutex_);
    return deadline_ > 0 && now() > deadline_;
}

bool MlflowLog::wait(double seconds) {
    std::unique_lock lock(mutex_);
    const double until = now() + seconds;
    while (now() < until && !(deadline_ > 0 && until > deadline_))
        changed_.wait_for(lock, std::chrono::duration<double>(std::max(0.001, until - now())));
    return now() >= until;
}

void MlflowLog::give_up(const std::string& cause) {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(given_up_, true)) trouble_ = fmt::format("mlflow: {}; the run goes on without it", cause);
    waiting_.clear();
}

void MlflowLog::work() {
    try {
        Sender sender(*this);
        sender.begin();
        for (;;) {
            std::vector<Metric> batch;
            {
                std::unique_lock lock(mutex_);
                changed_.wait(lock, [&] { return ending_ || given_up_ || !waiting_.empty(); });
                if (given_up_) return;
                while (!waiting_.empty() && batch.size() < most_metrics) {
                    batch.push_back(std::move(waiting_.front()));
                    waiting_.pop_front();
                }
            }
            if (batch.empty()) break;  // the end
            sender.send(batch);
        }
        sender.end(failed_);
    } catch (const Refusal& e) {
        give_up(e.cause);
    } catch (const std::exception& e) {
        give_up(e.what());
    }
}

}  // namespace colonnade
