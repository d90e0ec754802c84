#include "train/log/mlflow_log.h"

#include <cmath>

#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/http_server.h"

namespace colonnade {
namespace {

const std::string id_a(32, 'a'), id_b(32, 'b');

/// A server that answers as MLflow's does, and remembers what it got.
class FakeMlflow {
  public:
    FakeMlflow() : server([this](const WebRequest& request) { return answer(request); }) {}

    MlflowSettings settings() const {
        MlflowSettings settings;
        settings.server.endpoint = server.url();
        settings.server.tries = 3;
        settings.server.first_wait = 0.01;
        return settings;
    }
    WebReply answer(const WebRequest& request) {
        const std::lock_guard lock(mutex);
        const std::string method = request.path.substr(std::string("/api/2.0/mlflow/").size());
        calls.push_back(method);
        authorization = request.headers.contains("authorization") ? request.headers.at("authorization") : "";
        if (busy > 0) return --busy, WebReply{.status = 503};
        if (method == refused) return {.status = 400, .body = R"({"error_code": "INVALID_PARAMETER_VALUE"})"};
        if (method.starts_with("experiments/get-by-name"))
            return known ? WebReply{.body = R"({"experiment": {"experiment_id": "7"}})"} : WebReply{.status = 404};
        const Json body = parse_json(request.body, "body");
        if (method == "experiments/create") return {.body = R"({"experiment_id": "7"})"};
        if (method == "runs/create") {
            created.push_back(body);
            const std::string& id = created.size() == 1 ? id_a : id_b;
            return {.body = Json{{"run", {{"info", {{"run_id", id}}}}}}.dump()};
        }
        if (method == "runs/update") updates.push_back(body);
        if (method == "runs/log-batch") {
            run_ids.push_back(body.at("run_id"));
            for (const Json& metric : body.value("metrics", Json::array())) metrics.push_back(metric);
            for (const Json& param : body.value("params", Json::array())) params.push_back(param);
            largest = std::max({largest, body.value("metrics", Json()).size(), body.value("params", Json()).size()});
        }
        return {.body = "{}"};
    }

    std::mutex mutex;
    std::vector<std::string> calls, run_ids;
    std::vector<Json> created, updates, metrics, params;
    std::string authorization, refused;
    size_t largest = 0;
    int busy = 0;
    bool known = true;
    WebServer server;
};

class MlflowLogTest : public FileTest {
  protected:
    RunDescription run_ = {.project = "two words", .name = "first", .config = {{"seed", "42"}}, .texts = {}};
    FakeMlflow server_;
};

TEST_F(MlflowLogTest, SendsARun) {
    server_.known = false;
    for (int key = 0; key < 250; ++key) run_.config.emplace_back("key" + std::to_string(key), std::string(900, 'v'));
    {
        MlflowLog log(path("run"), run_, {}, server_.settings());
        for (int step = 1; step <= 2500; ++step)
            log.write(step, {{"train/loss", 1.0 / step}, {"train/grad_norm", step == 3 ? NAN : 2.0}});
    }
    ASSERT_GE(server_.calls.size(), 8u);
    EXPECT_EQ(server_.calls[0], "experiments/get-by-name?experiment_name=two%20words");
    EXPECT_EQ(server_.calls[1], "experiments/create");
    ASSERT_EQ(server_.created.size(), 1u);
    EXPECT_EQ(server_.created[0].at("experiment_id"), "7");
    EXPECT_EQ(server_.created[0].at("run_name"), "first");
    ASSERT_EQ(server_.params.size(), 251u);
    EXPECT_EQ(server_.params[0], Json({{"key", "seed"}, {"value", "42"}}));
    EXPECT_EQ(server_.params[1].at("value").get<std::string>().size(), 500u);
    ASSERT_EQ(server_.metrics.size(), 4999u);  // one is not finite
    EXPECT_LE(server_.largest, 1000u);
    for (const std::string& id : server_.run_ids) EXPECT_EQ(id, id_a);
    EXPECT_EQ(server_.metrics[0].at("key"), "train/loss");
    EXPECT_EQ(server_.metrics[0].at("step"), 1);
    EXPECT_NEAR(server_.metrics[0].at("timestamp").get<double>(), 1000.0 * static_cast<double>(std::time(nullptr)),
                6e5);
    EXPECT_EQ(server_.metrics.back().at("step"), 2500);
    ASSERT_EQ(server_.updates.size(), 1u);
    EXPECT_EQ(server_.updates[0].at("status"), "FINISHED");
}

TEST_F(MlflowLogTest, AResumedRunGoesOn) {
    for (const auto& resumed : {std::optional<int64_t>(), std::optional<int64_t>(4)})
        MlflowLog(path("run"), run_, resumed, server_.settings()).write(5, {{"train/loss", 1}});
    EXPECT_EQ(server_.created.size(), 1u);
    EXPECT_EQ(server_.params.size(), 1u);
    ASSERT_EQ(server_.updates.size(), 3u);
    EXPECT_EQ(server_.updates[1].at("status"), "RUNNING");
    // A run that the server does not know any more becomes a new one.
    server_.refused = "runs/update";
    { MlflowLog(path("run"), run_, 4, server_.settings()).write(6, {{"train/loss", 1}}); }
    EXPECT_EQ(server_.created.size(), 2u);
    EXPECT_EQ(server_.run_ids.back(), id_b);
}

TEST_F(MlflowLogTest, SaysHowTheRunEnded) {
    try {
        MlflowLog log(path("run"), run_, {}, server_.settings());
        log.write(1, {{"train/loss", 1}});
        throw std::runtime_error("the run fails");
    } catch (const std::runtime_error&) {
    }
    EXPECT_EQ(server_.updates.at(0).at("status"), "FAILED");
}

TEST_F(MlflowLogTest, TriesAgain) {
    server_.busy = 2;
    { MlflowLog(path("run"), run_, {}, server_.settings()).write(1, {{"train/loss", 1}}); }
    EXPECT_EQ(server_.metrics.size(), 1u);
}

TEST_F(MlflowLogTest, GivesUpAndSaysSoOnce) {
    server_.refused = "runs/log-batch";
    MlflowLog log(path("run"), run_, {}, server_.settings());
    std::string trouble;
    for (int i = 0; i < 500 && trouble.empty(); ++i) {
        log.write(i, {{"train/loss", 1}});
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        trouble = log.take_trouble();
    }
    EXPECT_NE(trouble.find("/api/2.0/mlflow/runs/log-batch: status 400: "), std::string::npos) << trouble;
    EXPECT_NE(trouble.find("INVALID_PARAMETER_VALUE"), std::string::npos) << trouble;
    EXPECT_EQ(trouble.find('\n'), std::string::npos);
    const size_t calls = server_.calls.size();
    for (int i = 0; i < 100; ++i) log.write(i, {{"train/loss", 1}});
    EXPECT_EQ(log.take_trouble(), "");
    EXPECT_EQ(server_.calls.size(), calls);
}

/// A server that is away delays the end of a run by closing_seconds at most.
TEST_F(MlflowLogTest, DoesNotWaitForEver) {
    server_.busy = 1 << 30;
    MlflowSettings settings = server_.settings();
    settings.server.tries = 1 << 20;
    settings.server.first_wait = 0.05;
    settings.closing_seconds = 0.3;
    const auto start = std::chrono::steady_clock::now();
    {
        MlflowLog log(path("run"), run_, {}, settings);
        for (size_t i = 0; i <= MlflowLog::most_waiting; ++i) log.write(1, {{"train/loss", 1}});
        EXPECT_NE(log.take_trouble().find("more than 20000 values wait for "), std::string::npos);
    }
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20);
}

TEST_F(MlflowLogTest, ProvesWhoItIs) {
    MlflowSettings settings = server_.settings();
    settings.server.token = "secret";
    { MlflowLog(path("a"), run_, {}, settings).write(1, {{"train/loss", 1}}); }
    EXPECT_EQ(server_.authorization, "Bearer secret");
    settings.server.token.clear();
    settings.user = "name:word";
    { MlflowLog(path("b"), run_, {}, settings).write(1, {{"train/loss", 1}}); }
    EXPECT_EQ(server_.authorization, "Basic bmFtZTp3b3Jk");
}

TEST_F(MlflowLogTest, NeedsAnAddress) {
    for (const char* address : {"", "/tmp/mlruns", "sqlite:///x.db"}) {
        setenv("MLFLOW_TRACKING_URI", address, 1);
        expect_error(Exit::config, "MLFLOW_TRACKING_URI", [] { mlflow_settings(); });
    }
    setenv("MLFLOW_TRACKING_URI", "http://localhost:5000/", 1);
    EXPECT_EQ(mlflow_settings().server.endpoint, "http://localhost:5000");
    unsetenv("MLFLOW_TRACKING_URI");
}

}  // namespace
}  // namespace colonnade
