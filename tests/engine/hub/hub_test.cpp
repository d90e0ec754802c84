// Names, settings, cache and downloads against a hub that misbehaves.

#include "engine/hub/hub.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>

#include "engine/hub/hub_cache.h"
#include "engine/io/files.h"
#include "tests/support/fake_hub.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(size_t size, unsigned seed) {
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
    return bytes;
}

class HubTest : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        hub.files = {{"config.json", "{}"}, {"model.safetensors", bytes_of(300'000, 1)}, {"sub/notes.md", "notes"}};
        settings.endpoint = hub.server.url();
        settings.cache = path("hub");
        settings.silence_seconds = 1;
        settings.first_wait = 0.02;
        settings.say = [this](const std::string& line) { said += line + "\n"; };
        settings.progress.write = [this](std::string_view text) { said += text; };
        settings.progress.terminal = false;
    }

    HubSnapshot fetch_all(const std::string& text = "org/name") {
        const auto kind = hub.kind == "models" ? RepositoryKind::model : RepositoryKind::dataset;
        return fetch(settings, {*parse_hub_name(text, kind), [](const std::vector<HubFile>& files) {
                                    std::vector<std::string> paths;
                                    for (const HubFile& file : files) paths.push_back(file.path);
                                    return paths;
                                }});
    }
    void expect_all(const HubSnapshot& snapshot) {
        for (const auto& [name, content] : hub.files) EXPECT_EQ(slurp(snapshot.folder + "/" + name), content) << name;
        EXPECT_EQ(listing(cache() + "/blobs").find("incomplete"), std::string::npos) << listing(cache() + "/blobs");
    }
    std::string cache() const {
        return path("hub/") + (hub.kind == "models" ? "models--org--name" : "datasets--org--name");
    }
    std::string weights_blob() { return cache() + "/blobs/" + sha256(hub.files["model.safetensors"]); }
    size_t saw(const std::string& part) const { return hub.requests(part).size(); }

    FakeHub hub;
    HubSettings settings;
    std::string said;
};

TEST(HubName, IsReadAsOtherProgramsReadIt) {
    struct Case {
        const char* text;
        RepositoryKind kind;
        const char *repository, *revision, *path;
    };
    const auto model = RepositoryKind::model, data = RepositoryKind::dataset;
    for (const Case& c : std::initializer_list<Case>{
             {"HuggingFaceTB/SmolLM2-135M", model, "HuggingFaceTB/SmolLM2-135M", "main", ""},
             {"org/name@v1.0", model, "org/name", "v1.0", ""},
             {"org/name@refs/pr/12", model, "org/name", "refs/pr/12", ""},
             {"org/name@refs/convert/parquet/sub", data, "org/name", "refs/convert/parquet", "sub"},
             {"org/name/model.Q8_0.gguf", model, "org/name", "main", "model.Q8_0.gguf"},
             {"org/name:Q8_0", model, "org/name", "main", "Q8_0"},
             {"org/name@dev:a.gguf", model, "org/name", "dev", "a.gguf"},
             {"org/name/data/train-*.parquet", data, "org/name", "main", "data/train-*.parquet"},
             {"hf://gpt2", model, "gpt2", "main", ""},
             {"hf://models/org/name/sub", model, "org/name", "main", "sub"},
             {"hf://datasets/org/name", data, "org/name", "main", ""}}) {
        const auto name = parse_hub_name(c.text, c.kind);
        ASSERT_TRUE(name) << c.text;
        EXPECT_EQ(name->repository, c.repository) << c.text;
        EXPECT_EQ(name->revision, c.revision) << c.text;
        EXPECT_EQ(name->path, c.path) << c.text;
    }
    for (const char* path :
         {"", "gpt2", "/a/b", "./a", "../a/b", "~/a", "a/b/c", "a/b.jsonl", "data/x.gguf", "/", "a//b", "a/b@",
          "a/b@../x", "-a/b", "a/b.git", "a/b..c", "a b/c", "a/*", "/proc/self/nothing"})
        EXPECT_FALSE(parse_hub_name(path, model)) << path;
    expect_error(Exit::data, "expected hf://org/name", [&] { parse_hub_name("hf://-x", model); });
    expect_error(Exit::data, "names a data set", [&] { parse_hub_name("hf://datasets/org/name", model); });
}

TEST_F(HubTest, APathOfThisMachineWins) {
    const fs::path before = fs::current_path();
    fs::current_path(folder_);
    EXPECT_TRUE(parse_hub_name("org/name", RepositoryKind::model));
    fs::create_directories("org");
    EXPECT_FALSE(parse_hub_name("org/other", RepositoryKind::model)) << "a typing error in a path goes to no hub";
    fs::create_directories("org/name");
    EXPECT_FALSE(parse_hub_name("org/name", RepositoryKind::model));
    EXPECT_TRUE(parse_hub_name("hf://org/name", RepositoryKind::model));
    fs::current_path(before);
}

TEST_F(HubTest, SettingsComeFromTheEnvironment) {
    const auto in_child = [&](const std::map<std::string, std::string>& variables, const std::function<bool()>& holds) {
        return exit_of_child([&] {
            for (const char* name : {"HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_TOKEN",
                                     "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN_PATH"})
                unsetenv(name);
            for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
            return holds() ? 0 : 1;
        });
    };
    EXPECT_EQ(in_child({{"HOME", "/h"}}, [] { return hub_settings().cache == "/h/.cache/huggingface/hub"; }), 0);
    EXPECT_EQ(in_child({{"XDG_CACHE_HOME", "/x"}}, [] { return hub_settings().cache == "/x/huggingface/hub"; }), 0);
    EXPECT_EQ(in_child({{"HOME", "/h"}, {"HF_HOME", "~/hf"}}, [] { return hub_settings().cache == "/h/hf/hub"; }), 0);
    EXPECT_EQ(in_child({{"HF_HOME", "/y"}, {"HF_HUB_CACHE", "/z"}}, [] { return hub_settings().cache == "/z"; }), 0);
    EXPECT_EQ(in_child({{"HF_HUB_OFFLINE", "true"}}, [] { return hub_settings().offline; }), 0);
    EXPECT_EQ(in_child({{"HF_HUB_OFFLINE", "0"}}, [] { return !hub_settings().offline; }), 0);
    EXPECT_EQ(in_child({{"HF_ENDPOINT", "http://a:1//"}}, [] { return hub_settings().endpoint == "http://a:1"; }), 0);
    EXPECT_EQ(in_child({{"HF_ENDPOINT", "ftp://a"}}, [] { return hub_settings().offline; }), 2);
    EXPECT_EQ(in_child({{"HF_TOKEN", " t\n"}}, [] { return hub_settings().token == "t"; }), 0);
    EXPECT_EQ(in_child({{"HF_TOKEN", "t\nX-Evil: 1"}}, [] { return hub_settings().offline; }), 2);
    spill(path("token"), "of_file\n");
    EXPECT_EQ(
        in_child({{"HF_HOME", folder_}},
                 [&] { return hub_settings().token == "of_file" && hub_settings().token_source == path("token"); }),
        0);
}

TEST_F(HubTest, LoadsOnceIntoTheSharedLayout) {
    const HubSnapshot snapshot = fetch_all();
    expect_all(snapshot);
    EXPECT_EQ(snapshot.commit, FakeHub::first_commit);
    EXPECT_EQ(slurp(cache() + "/refs/main"), FakeHub::first_commit);
    EXPECT_EQ(fs::read_symlink(snapshot.folder + "/sub/notes.md"), "../../../blobs/" + git_blob_sha1("notes"));
    EXPECT_EQ(slurp(weights_blob()), hub.files["model.safetensors"]);
    EXPECT_TRUE(fs::exists(path("hub/.locks/models--org--name/") + git_blob_sha1("{}") + ".lock"));
    EXPECT_NE(said.find("100%"), std::string::npos) << said;
    const Json tree = Json::parse(slurp(cache() + "/trees/" + hub.commit + ".json"));
    EXPECT_EQ(tree["files"]["model.safetensors"]["lfs_sha256"], sha256(hub.files["model.safetensors"]));

    hub.server.forget_requests();
    expect_all(fetch_all());
    EXPECT_EQ(hub.server.requests().size(), 1u) << "only main is looked up";
    hub.server.forget_requests();
    expect_all(fetch_all("org/name@" + hub.commit));
    EXPECT_EQ(hub.server.requests().size(), 0u);

    hub.commit = std::string(40, 'b');  // main moves on; what did not change is not loaded again
    hub.files["config.json"] = "{ }";
    expect_all(fetch_all());
    EXPECT_EQ(saw("/cdn/"), 0u);
    EXPECT_EQ(saw("/resolve/"), 1u);
}

TEST_F(HubTest, ReadsAListInPages) {
    hub.page = 2;
    hub.files["a.json"] = "a", hub.files["b c#.json"] = "b";
    hub.files.erase("b c#.json");  // the test's server does not decode names
    expect_all(fetch_all());
    EXPECT_EQ(saw("/tree/"), 2u);
    hub.commit = std::string(40, 'c');
    hub.fault("/tree/", [](WebReply r) {
        r.headers.push_back("Link: <http://elsewhere.test/next>; rel=\"next\"");
        return r;
    });
    expect_error(Exit::data, "next page is at http://elsewhere.test", [&] { fetch_all(); });
}

TEST_F(HubTest, ContinuesWhatWasCut) {
    hub.fault(
        "/cdn/", [](WebReply r) { return r.cut = r.body.size() / 3, r; }, 3);
    expect_all(fetch_all());
    const auto requests = hub.requests("/cdn/");
    ASSERT_EQ(requests.size(), 4u);
    EXPECT_EQ(requests[1].headers.at("range"), "bytes=100000-");
    EXPECT_NE(said.find("model.safetensors: "), std::string::npos) << said;
}

TEST_F(HubTest, StartsAgainIfTheHubIgnoresTheRange) {
    hub.ranges = false;
    hub.fault("/cdn/", [](WebReply r) { return r.cut = 1000, r; });
    expect_all(fetch_all());
}

TEST_F(HubTest, ContinuesWhatAnotherProcessBegan) {
    fs::create_directories(cache() + "/blobs");
    spill(weights_blob() + ".incomplete", hub.files["model.safetensors"].substr(0, 200'000));
    expect_all(fetch_all());
    EXPECT_EQ(hub.requests("/cdn/").at(0).headers.at("range"), "bytes=200000-");
}

TEST_F(HubTest, LoadsAgainWhatWasLeftDamaged) {
    fs::create_directories(cache() + "/blobs");
    spill(weights_blob() + ".incomplete", std::string(200'000, '\0'));
    expect_all(fetch_all());
    EXPECT_NE(said.find("is damaged"), std::string::npos) << said;
}

TEST_F(HubTest, RefusesWrongBytes) {
    hub.fault("/cdn/", [](WebReply r) { return r.body[5] = static_cast<char>(r.body[5] ^ 1), r; });
    expect_error(Exit::data, "do not have the hash", [&] { fetch_all(); });
    EXPECT_FALSE(fs::exists(weights_blob()));
    EXPECT_FALSE(fs::exists(weights_blob() + ".incomplete"));
    fs::remove_all(settings.cache);
    hub.fault("config.json", [](WebReply r) { return r.body = "[]", r; });  // as long as the right one
    expect_error(Exit::data, "do not have the hash", [&] { fetch_all(); });
    expect_all(fetch_all());
}

TEST_F(HubTest, RefusesWrongSizes) {
    hub.fault("/cdn/", [](WebReply r) { return r.body += "more", r; });
    expect_error(Exit::data, "300004 bytes come, expected 300000", [&] { fetch_all(); });
    fs::remove_all(settings.cache);
    hub.fault("config.json", [](WebReply r) { return r.body = "<html>log in</html>", r; });
    expect_error(Exit::data, "bytes come, expected 2", [&] { fetch_all(); });
    expect_all(fetch_all());
}

TEST_F(HubTest, TellsWhatIsMissing) {
    expect_error(Exit::data, "neither a path of this machine nor a model on the hub", [&] { fetch_all("org/other"); });
    expect_error(Exit::data, "has no revision 'v9'", [&] { fetch_all("org/name@v9"); });
    hub.fault("config.json", [](const WebReply&) { return FakeHub::error(404, "EntryNotFound"); });
    expect_error(Exit::data, "has no file config.json", [&] { fetch_all(); });
    hub.fault("/revision/", [](const WebReply&) { return FakeHub::error(401, "RepoNotFound"); });
    expect_error(Exit::data, "no token was sent: set HF_TOKEN", [&] { fetch_all(); });
}

TEST_F(HubTest, TellsWhatIsGatedOrForbidden) {
    const auto gated = [](const WebReply&) {
        return FakeHub::error(403, "GatedRepo", "Access to model org/name is restricted");
    };
    hub.fault("/resolve/", gated, 9);
    expect_error(Exit::data,
                 "is gated: accept its terms on that page, and use a token of that account (no token was sent",
                 [&] { fetch_all(); });
    settings.token = "hf_secret", settings.token_source = "HF_TOKEN";
    const std::string message = expect_error(Exit::data, "the token of HF_TOKEN was sent", [&] { fetch_all(); });
    EXPECT_EQ(message.find("secret"), std::string::npos);
    hub.faults.clear();
    hub.fault("/revision/",
              [](const WebReply&) { return FakeHub::error(401, "", "Invalid credentials in Authorization header"); });
    expect_error(Exit::data, "does not know the token of HF_TOKEN", [&] { fetch_all(); });
    hub.fault("/revision/",
              [](const WebReply&) { return FakeHub::error(403, "", "Access to this resource is disabled."); });
    expect_error(Exit::data, "the hub has disabled it", [&] { fetch_all(); });
}

TEST_F(HubTest, WaitsAsLongAsTheHubAsks) {
    hub.fault("/revision/", [](const WebReply&) {
        WebReply busy = FakeHub::error(429);
        busy.headers.push_back("Retry-After: 1");
        return busy;
    });
    const auto start = std::chrono::steady_clock::now();
    expect_all(fetch_all());
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
    EXPECT_NE(said.find("status 429; trying again in 1 s"), std::string::npos) << said;
    hub.fault("/revision/", [](const WebReply&) {
        WebReply busy = FakeHub::error(429);
        busy.headers.push_back("Retry-After: 86400");
        return busy;
    });
    hub.commit = std::string(40, 'd');
    expect_error(Exit::data, "asks to wait for 86400 seconds", [&] { fetch_all("org/name@refs/pr/1"); });
}

TEST_F(HubTest, TriesAgainWhenTheHubIsDown) {
    const auto down = [](const WebReply&) { return WebReply{.status = 503}; };
    hub.fault("/revision/", down), hub.fault("/tree/", down, 2), hub.fault("/resolve/", down),
        hub.fault("/cdn/", down, 3);
    expect_all(fetch_all());
    hub.commit = std::string(40, 'd');
    hub.fault("/tree/", down, 5);
    expect_error(Exit::data, "status 503; try again later", [&] { fetch_all(); });
    EXPECT_EQ(saw("/tree/" + hub.commit), 5u);
}

TEST_F(HubTest, TriesAgainWhenTheHubFallsSilent) {
    hub.fault("/cdn/", [](WebReply r) { return r.pause = 3, r; });
    expect_all(fetch_all());
    EXPECT_EQ(saw("/cdn/"), 2u);
}

TEST_F(HubTest, SendsTheTokenToItsOwnHostOnly) {
    settings.token = "hf_secret", settings.token_source = "HF_TOKEN";
    expect_all(fetch_all());
    ASSERT_EQ(saw("/cdn/"), 1u);
    for (const WebRequest& request : hub.server.requests()) {
        const bool cdn = request.path.starts_with("/cdn/");
        EXPECT_EQ(request.headers.contains("authorization"), !cdn) << request.path;
        EXPECT_TRUE(cdn || request.headers.at("authorization") == "Bearer hf_secret");
    }
}

TEST_F(HubTest, EndsARedirectThatGoesInACircle) {
    hub.files.erase("config.json"), hub.files.erase("sub/notes.md");
    hub.fault(
        "/resolve/",
        [&](const WebReply&) {
            return WebReply{.status = 302, .headers = {"Location: " + hub.server.url() + "/org/name/resolve/x"}};
        },
        100);
    expect_error(Exit::data, "edirects", [&] { fetch_all(); });
    EXPECT_LE(saw("/resolve/"), 12u);
}

TEST_F(HubTest, RefusesHostileLists) {
    const std::string oid(40, 'a'), sum(64, 'b');
    const auto entry = [&](const std::string& path) {
        return Json({{"type", "file"}, {"path", path}, {"size", 1}, {"oid", oid}}).dump();
    };
    for (const char* bad : {"../x", "/etc/x", "a/../../x", "a//b", "", "a/./b", "a\\b", "a\nb"}) {
        hub.tree_json = "[" + entry(bad) + "]";
        expect_error(Exit::data, "key 'path' should be a path inside the repository", [&] { fetch_all(); });
    }
    hub.tree_json = "[" + entry("a") + "," + entry("a") + "]";
    expect_error(Exit::data, "lists a twice", [&] { fetch_all(); });
    for (const auto& [json, part] : std::initializer_list<std::pair<const char*, const char*>>{
             {"<!DOCTYPE html>", "a web page came"},
             {"{}", "expected a list"},
             {"[1]", "entry 0"},
             {"[", "invalid JSON"},
             {R"([{"type": "file", "path": "a", "size": -1, "oid": "x"}])", "key 'size'"},
             {R"([{"type": "file", "path": "a", "size": 1e30, "oid": "x"}])", "key 'size'"},
             {R"([{"type": "file", "path": "a", "size": 1, "oid": "../../x"}])", "key 'oid'"}}) {
        hub.tree_json = json;
        expect_error(Exit::data, part, [&] { fetch_all(); });
    }
    hub.tree_json = std::string(limits::hub_answer_bytes + 1, ' ');
    expect_error(Exit::data, "the answer has more than", [&] { fetch_all(); });
    EXPECT_FALSE(fs::exists(cache() + "/snapshots"));
}

TEST_F(HubTest, WorksWithoutAConnection) {
    settings.offline = true;
    expect_error(Exit::data, "and HF_HUB_OFFLINE is on", [&] { fetch_all(); });
    EXPECT_EQ(hub.server.requests().size(), 0u);
    settings.offline = false;
    fetch_all();
    hub.server.forget_requests();
    settings.offline = true;
    expect_all(fetch_all());
    fs::remove_all(cache() + "/trees");  // as older programs leave it
    expect_all(fetch_all());
    EXPECT_EQ(hub.server.requests().size(), 0u);

    settings.offline = false;
    settings.endpoint = "http://127.0.0.1:1";
    const HubSnapshot snapshot = fetch_all();
    expect_all(snapshot);
    ASSERT_EQ(snapshot.notices.size(), 1u);
    EXPECT_NE(snapshot.notices[0].find("cannot be reached"), std::string::npos);
    settings.endpoint = hub.server.url();
    fetch_all();
    fs::remove(weights_blob());
    settings.offline = true;
    expect_error(Exit::data, "lacks 1 of 3 files, such as model.safetensors", [&] { fetch_all(); });
}

TEST_F(HubTest, KeepsWhatFitsOnAFullDisk) {
    const int exit = exit_of_child([&] {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{.rlim_cur = 100'000, .rlim_max = 100'000};
        setrlimit(RLIMIT_FSIZE, &limit);
        fetch_all();
        return 0;
    });
    EXPECT_EQ(exit, static_cast<int>(Exit::storage));
    EXPECT_EQ(fs::file_size(weights_blob() + ".incomplete"), 100'000u);
    hub.server.forget_requests();
    expect_all(fetch_all());
    EXPECT_EQ(hub.requests("/cdn/").at(0).headers.at("range"), "bytes=100000-");
}

TEST_F(HubTest, IsKilledAndStartedAgain) {
    hub.files["model.safetensors"] = bytes_of(20'000'000, 2);
    hub.fault("/cdn/", [](WebReply r) { return r.pause = 0, r.cut = 15'000'000, r; });
    hub.fault("/cdn/", [](WebReply r) { return r.pause = 30, r; });
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        settings.silence_seconds = 60;
        try {
            fetch_all();
        } catch (...) {
        }
        _exit(0);
    }
    for (int i = 0; i < 200 && saw("/cdn/") < 2; ++i) usleep(50'000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_EQ(fs::file_size(weights_blob() + ".incomplete"), 15'000'000u);
    hub.server.forget_requests();
    expect_all(fetch_all());
    EXPECT_EQ(hub.requests("/cdn/").at(0).headers.at("range"), "bytes=15000000-");
}

TEST_F(HubTest, ManyProcessesLoadAFileOnce) {
    hub.fault(
        "/cdn/", [](WebReply r) { return r.pause = 0.6, r; }, 8);
    std::vector<pid_t> children;
    std::fflush(nullptr);
    for (int i = 0; i < 4; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            int status = 1;
            try {
                fetch_all();
                status = said.find("another process") != said.npos ? 2 : 0;
            } catch (...) {
            }
            _exit(status);
        }
        children.push_back(child);
    }
    int waited = 0;
    for (const pid_t child : children) {
        int status = 0;
        waitpid(child, &status, 0);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        waited += WIFEXITED(status) && WEXITSTATUS(status) == 2;
    }
    EXPECT_GE(waited, 1);
    EXPECT_EQ(saw("/cdn/"), 1u);
    expect_all({.folder = cache() + "/snapshots/" + hub.commit, .commit = hub.commit});
}

TEST_F(HubTest, DataSetsHaveTheirOwnFolder) {
    hub.kind = "datasets";
    expect_all(fetch_all());
    EXPECT_TRUE(fs::exists(path("hub/datasets--org--name/refs/main")));
}

}  // namespace
}  // namespace colonnade
