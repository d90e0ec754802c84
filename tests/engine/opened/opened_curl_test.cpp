// libcurl, opened at the first request, as the portable build does.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "engine/device/opened_library.h"
#include "engine/hub/http.h"
#include "tests/support/expect_error.h"
#include "tests/support/http_server.h"
#include "tests/support/program.h"

namespace colonnade {
namespace {

TEST(OpenedCurl, SendsRequests) {
    if (http_library().empty()) GTEST_SKIP() << "no libcurl";
    EXPECT_TRUE(http_library().starts_with("libcurl/")) << http_library();
    WebServer server([](const WebRequest& request) {
        return WebReply{.headers = {"X-Path: " + request.path}, .body = request.method + " " + request.body};
    });
    HubSettings settings;
    settings.endpoint = server.url();
    Http http(settings);
    const HttpAnswer answer = http.send({.url = server.url() + "/place", .json = R"({"a":1})"});
    EXPECT_EQ(answer.status, 200) << answer.failure;
    EXPECT_EQ(answer.header("x-path"), "/place");
    EXPECT_EQ(answer.body, R"(POST {"a":1})");
    const HttpAnswer nobody = http.send({.url = "http://127.0.0.1:1/"});
    EXPECT_EQ(nobody.status, 0);
    EXPECT_FALSE(nobody.failure.empty());
    settings.endpoint = "https://127.0.0.1";
    EXPECT_NE(http.send({.url = server.url() + "/place"}).failure.find("rotocol"), std::string::npos)
        << "only https if the endpoint has https";
    bool opened = false;
    for (const OpenedFile& file : opened_files()) opened |= file.name == "libcurl";
    EXPECT_TRUE(opened);
}

TEST(DISABLED_OpenedCurl, Missing) {
    const HubSettings settings;
    const std::string line = expect_error(Exit::config, "install the package libcurl4", [&] { Http http(settings); });
    EXPECT_NE(line.find("libcurl was not found; tried /nowhere/libcurl.so.4."), line.npos) << line;
    EXPECT_EQ(http_library(), "");
}

TEST(OpenedCurl, OneLineWithoutIt) {
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    const Program::Result result =
        run(self, {"--gtest_also_run_disabled_tests", "--gtest_filter=DISABLED_OpenedCurl.Missing"},
            [] { setenv("COLONNADE_CURL", "/nowhere/libcurl.so.4", 1); });
    EXPECT_EQ(result.exit, 0) << result.out << result.err;
}

}  // namespace
}  // namespace colonnade
