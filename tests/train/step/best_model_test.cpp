// BestModel and the rotation of checkpoints against transformers (tests/golden/make_best_golden.py).

#include "train/step/best_model.h"

#include <limits>

#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"
#include "train/folders/run_checkpoints.h"

namespace colonnade {
namespace {

double number(const Json& json) {
    if (json.is_number()) return json.get<double>();
    const auto text = json.get<std::string>();
    return text == "nan" ? std::numeric_limits<double>::quiet_NaN() : text == "inf" ? HUGE_VAL : -HUGE_VAL;
}

const Json& golden() {
    static const Json json = read_json_file(golden_file("best_golden.json"));
    return json;
}

TEST(BestModel, DecidesAsTransformers) {
    int64_t stops = 0, compared = 0;
    for (const Json& c : golden().at("cases")) {
        SCOPED_TRACE(c.dump());
        BestModel model({.metric = "eval_loss",
                         .greater_is_better = c.at("greater"),
                         .patience = c.at("patience"),
                         .threshold = c.at("threshold")});
        for (size_t i = 0; i < c.at("values").size(); ++i) {
            // What a run that is resumed here reads decides alike.
            model = BestModel(model.rules(), model.record());
            const Json& expected = c.at("decisions")[i];
            EXPECT_EQ(model.add(static_cast<int64_t>(i) + 1, number(c.at("values")[i])), expected.at("best"));
            EXPECT_EQ(model.record().value, number(expected.at("value")));
            EXPECT_EQ(model.record().step, expected.at("step"));
            EXPECT_EQ(model.record().without_improvement, expected.at("without_improvement"));
            EXPECT_EQ(model.should_stop(), expected.at("stop"));
            stops += model.should_stop();
            ++compared;
        }
    }
    EXPECT_GT(stops, 50);
    EXPECT_GT(compared, 500);
}

TEST(BestModel, DropsARecordOfAnotherMetric) {
    BestModel loss({.metric = "eval_loss", .patience = 2});
    for (const double value : {3.0, 4.0, 5.0}) loss.add(1, value);
    EXPECT_TRUE(loss.should_stop());
    EXPECT_TRUE(BestModel({.metric = "eval_loss", .patience = 2}, loss.record()).should_stop());
    EXPECT_FALSE(BestModel({.metric = "eval_loss", .patience = 3}, loss.record()).should_stop()) << "patience may grow";
    EXPECT_EQ(BestModel({.metric = "eval_accuracy"}, loss.record()).record(), BestRecord{});
    EXPECT_EQ(BestModel({.metric = "eval_loss", .greater_is_better = true}, loss.record()).record(), BestRecord{});
    BestModel none;
    EXPECT_FALSE(none.add(1, 2.0));
    EXPECT_EQ(none.record(), BestRecord{});
}

TEST(BestModel, ForgetsALostCheckpointButNotTheCount) {
    BestModel model({.metric = "eval_loss", .patience = 3});
    for (const double value : {1.0, 2.0, 2.0}) model.add(1, value);
    model.forget();
    EXPECT_EQ(model.record().step, 0);
    EXPECT_EQ(model.record().without_improvement, 2);
    EXPECT_TRUE(model.add(9, 5.0));
    EXPECT_EQ(model.record().step, 9);
}

class Rotations : public FileTest {};

TEST_F(Rotations, KeepWhatTransformersKeeps) {
    for (const Json& c : golden().at("rotations")) {
        const std::string folder = path("run");
        for (const int64_t step : c.at("steps"))
            std::filesystem::create_directories(checkpoint_folder(folder, step) + "/inside");
        EXPECT_EQ(rotate_checkpoints(folder, {.keep = c.at("keep"), .best = c.at("best")}), "");
        EXPECT_EQ(checkpoint_steps(folder), c.at("left").get<std::vector<int64_t>>()) << c;
        std::filesystem::remove_all(folder);
    }
}

}  // namespace
}  // namespace colonnade
