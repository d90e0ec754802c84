// Libraries that are opened when they are needed: which files are tried, and what the error reports if none is there.

#include "engine/device/opened_library.h"

#include <cstdlib>

#include "tests/support/file_test.h"

extern "C" {
int fake_sum(int a, int b);
double fake_sum_of(int count, ...);
int fake_missing(const char* text);
}

namespace colonnade {

static OpenedLibrary& fake_library() {
    static OpenedLibrary library(
        {.name = "Fake", .variable = "FAKE_FILE", .files = {FAKE_LIBRARY}, .remedy = "Build it"});
    return library;
}
// Nothing defines the three functions, so that a call of one of them would not link.
COLONNADE_OPENED(fake_library, fake_sum);
COLONNADE_OPENED(fake_library, fake_sum_of);
COLONNADE_OPENED(fake_library, fake_missing);

namespace {

namespace fs = std::filesystem;

class OpenedLibraryTest : public FileTest {
  protected:
    void TearDown() override {
        for (const char* name : {"FAKE_FILE", "FAKE_HOME"}) unsetenv(name);
        FileTest::TearDown();
    }
    static OpenedLibrary::Source source(std::vector<std::string> files) {
        return {.name = "Fake", .variable = "FAKE_FILE", .files = std::move(files), .remedy = "Build it"};
    }
    /// A file of the user's own that is the library.
    std::string copy(const std::string& name) {
        fs::create_directories(fs::path(path(name)).parent_path());
        fs::copy_file(FAKE_LIBRARY, path(name));
        return path(name);
    }
};

TEST_F(OpenedLibraryTest, FunctionsAreCalledAsTheirHeaderDeclaresThem) {
    EXPECT_EQ(fake_sum(2, 3), 5);
    EXPECT_EQ(fake_sum_of(3, 0.5, 1.0, 2.0), 3.5);
    EXPECT_EQ(*static_cast<int*>(fake_library().symbol("fake_datum")), 42);
    bool listed = false;
    for (const OpenedFile& file : opened_files())
        listed |= file.name == "Fake" && file.file == fs::canonical(FAKE_LIBRARY);
    EXPECT_TRUE(listed);
}

TEST_F(OpenedLibraryTest, ALibraryWithoutTheFunctionIsAnother) {
    expect_error(Exit::config, "has no 'fake_missing', so it is not the Fake that this program expects",
                 [] { fake_missing("text"); });
}

TEST_F(OpenedLibraryTest, TakesTheFirstFileThatOpens) {
    setenv("FAKE_HOME", folder_.c_str(), 1);
    const std::string second = copy("python3.12/fake.so");
    copy("python3.11/fake.so");
    std::ofstream(path("damaged.so")) << "not a library";
    OpenedLibrary library(source({"libno_such_library.so.7", "$FAKE_UNSET/fake.so", path("damaged.so"),
                                  "$FAKE_HOME/none*/fake.so", "$FAKE_HOME/python3*/fake.so", FAKE_LIBRARY}));
    EXPECT_TRUE(library.opens());
    EXPECT_EQ(library.file(), second) << "the newest of those that the pattern finds";
}

TEST_F(OpenedLibraryTest, SaysWhatItTried) {
    std::ofstream(path("damaged.so")) << "not a library";
    OpenedLibrary library(source({"libno_such_library.so.7", "$FAKE_UNSET/fake.so", path("damaged.so")}));
    EXPECT_FALSE(library.opens());
    EXPECT_EQ(library.file(), "");
    const std::string line =
        expect_error(Exit::config, "Fake was not found; tried libno_such_library.so.7, " + path("damaged.so") + " (",
                     [&] { library.symbol("fake_sum"); });
    EXPECT_NE(line.find("). Build it, or set FAKE_FILE to the path of its file"), line.npos) << line;
}

TEST_F(OpenedLibraryTest, TheVariableIsTheOnlyFile) {
    setenv("FAKE_FILE", path("none.so").c_str(), 1);
    OpenedLibrary missing(source({FAKE_LIBRARY}));
    expect_error(Exit::config, "tried " + path("none.so") + ". Build it", [&] { missing.symbol("fake_sum"); });
    const std::string own = copy("own.so");
    setenv("FAKE_FILE", own.c_str(), 1);
    OpenedLibrary chosen(source({FAKE_LIBRARY}));
    EXPECT_EQ(chosen.file(), own);
}

TEST_F(OpenedLibraryTest, NamesALibraryThatItCannotUse) {
    OpenedLibrary::Source fake = source({"libno_such_library.so.7"});
    fake.unusable = {{FAKE_LIBRARY, "A relative"}, {"libno_such_library.so.8", "Another"}};
    OpenedLibrary library(fake);
    const std::string line = expect_error(Exit::config,
                                          std::string("Fake was not found; A relative (") + FAKE_LIBRARY +
                                              ") is here, but this program cannot use it; tried",
                                          [&] { library.symbol("fake_sum"); });
    EXPECT_EQ(line.find("Another"), line.npos) << line;
}

}  // namespace
}  // namespace colonnade
