// Readers of other people's files under mutated input (tests/fuzz/session.h says what they must hold). The inputs are
// few here; scripts/fuzz.sh reads as many as it is given time for, under sanitizers and guided by coverage.

#include "tests/fuzz/edges.h"
#include "tests/fuzz/session.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

class HostileFiles : public testing::TestWithParam<NamedFormat> {};

TEST_P(HostileFiles, AreReadOrRefused) {
    const FuzzOutcome outcome = fuzz(GetParam(), {.inputs = 300, .failures = testing::TempDir()});
    for (const std::string& failure : outcome.failures) ADD_FAILURE() << failure;
    EXPECT_EQ(outcome.inputs, 300);
    // HDF5's reader is a library without counters, and the corpus leads through all of ours.
    if (edges::counted() && GetParam().name != std::string("hdf5")) {
        EXPECT_GT(outcome.edges, outcome.edges_of_seeds);
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, HostileFiles, testing::ValuesIn(all_formats()),
                         [](const auto& format) { return format.param.name; });

/// A format whose reader fails in the way that the input asks for.
NamedFormat failing_format(const std::string& input) {
    return {"failing", [input](const std::string&) {
                return Format{.file = "input", .seeds = {input}, .read = [](const auto&, const std::string& file) {
                                  const std::string text = slurp(file);
                                  if (text.starts_with("crash")) std::abort();
                                  if (text.starts_with("internal")) fail(Exit::internal, "broken contract");
                                  if (text.starts_with("throw")) throw std::out_of_range("no Error");
                                  if (text.starts_with("memory"))
                                      std::string(size_t{300} << 20, 'x').swap(*new std::string);
                                  if (text.starts_with("refuse")) fail(Exit::data, "refused");
                              }};
            }};
}

TEST(FuzzSession, FindsEveryKindOfFailure) {
    for (const std::string kind : {"crash", "internal", "throw", "memory"}) {
        const FuzzOutcome outcome = fuzz(failing_format(kind), {.inputs = 0, .failures = testing::TempDir()});
        ASSERT_EQ(outcome.failures.size(), 1u) << kind;
        const std::string file = outcome.failures[0].substr(outcome.failures[0].rfind(' ') + 1);
        EXPECT_EQ(slurp(file), kind);
        std::filesystem::remove(file);
    }
    const FuzzOutcome refused = fuzz(failing_format("refuse"), {.inputs = 0, .failures = testing::TempDir()});
    EXPECT_TRUE(refused.failures.empty());
}

// One input in 2^32 begins with "deep"; guided by coverage, four bytes are found one by one.
TEST(FuzzSession, CoverageLeadsToInputsThatChanceDoesNotFind) {
    if (!edges::counted()) GTEST_SKIP() << "this build counts no edges";
    const NamedFormat format = {
        "deep", [](const std::string&) {
            return Format{.file = "input", .seeds = {"...."}, .read = [](const auto&, const std::string& file) {
                              const std::string text = slurp(file);
                              if (text.size() > 3 && text[0] == 'd')
                                  if (text[1] == 'e')
                                      if (text[2] == 'e')
                                          if (text[3] == 'p') std::abort();
                          }};
        }};
    FuzzRequest request{.inputs = 200'000, .failures = testing::TempDir()};
    EXPECT_FALSE(fuzz(format, request).failures.empty());
    request.guidance = Guidance::blind;
    EXPECT_TRUE(fuzz(format, request).failures.empty());
}

}  // namespace
}  // namespace colonnade
