// Runs that report to Trackio and MLflow, read by the real packages. COLONNADE_PYTHON names a Python that has them;
// without them these tests are skipped.

#include "tests/support/http_server.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

std::string python() {
    const char* const given = std::getenv("COLONNADE_PYTHON");
    return given ? given : "/usr/bin/python3";
}

bool has_package(const std::string& name) {
    return std::filesystem::exists(python()) && run(python(), {"-c", "import " + name}).exit == 0;
}

class TrackersRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(
            "max_steps: 6\nval_size: 16\neval_steps: 3\nlogging_steps: 1\nlearning_rate: 0.01\n"
            "save_strategy: no\nproject: columns\n");
    }
    void check(const char* script, const std::function<void()>& environment) const {
        const Program::Result result =
            run(python(), {project_file(std::string("tests/golden/") + script), path("run"), "columns"}, environment);
        EXPECT_EQ(result.exit, 0) << result.out << result.err;
    }
};

TEST_F(TrackersRun, TrackioImportsIt) {
    if (!has_package("trackio")) GTEST_SKIP() << "no trackio";
    const auto environment = [&] { setenv("TRACKIO_DIR", path("trackio").c_str(), 1); };
    const Program::Result result = run("train", {config(), output("run"), "report_to=[jsonl,trackio]"}, environment);
    EXPECT_EQ(result.exit, 0) << result.err;
    check("check_trackio.py", environment);
}

TEST_F(TrackersRun, MlflowHasIt) {
    if (!has_package("mlflow")) GTEST_SKIP() << "no mlflow";
    // A port that was free a moment ago.
    const std::string address = WebServer([](const WebRequest&) { return WebReply(); }).url();
    Program server(
        python(),
        {"-m", "mlflow", "server", "--host", "127.0.0.1", "--port", address.substr(address.rfind(':') + 1), "--workers",
         "1", "--backend-store-uri", "sqlite:///" + path("mlflow.db"), "--default-artifact-root", path("artifacts")},
        [&] {
            const int log = open(path("server.log").c_str(), O_WRONLY | O_CREAT, 0600);
            dup2(log, 1), dup2(log, 2);  // nobody reads the pipe
        });
    const auto environment = [&] { setenv("MLFLOW_TRACKING_URI", address.c_str(), 1); };
    const std::string ask =
        fmt::format("import urllib.request; urllib.request.urlopen('{}/health', timeout=2)", address);
    for (int tried = 0; tried < 60 && run(python(), {"-c", ask}).exit != 0; ++tried) sleep(1);
    const Program::Result result = run("train", {config(), output("run"), "report_to=[jsonl,mlflow]"}, environment);
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_EQ(result.err.find("mlflow:"), std::string::npos) << result.err;
    check("check_mlflow.py", environment);
    server.send(SIGTERM);
    server.wait();
}

/// A server that is not there: one line, and the run ends well.
TEST_F(TrackersRun, NoServerEndsNoRun) {
    const Program::Result result = run("train", {config(), output("run"), "report_to=[jsonl,mlflow]"},
                                       [] { setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1", 1); });
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_NE(result.err.find("warning: mlflow: http://127.0.0.1:1/api/2.0/mlflow/"), std::string::npos) << result.err;
    EXPECT_TRUE(std::filesystem::exists(path("run/model.safetensors")));
}

TEST_F(TrackersRun, NoAddressIsAnError) {
    const Program::Result result =
        run("train", {config(), output("run"), "report_to=[mlflow]"}, [] { unsetenv("MLFLOW_TRACKING_URI"); });
    EXPECT_EQ(result.exit, 2);
    EXPECT_NE(result.err.find("report_to: mlflow needs the address of a server"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace colonnade
