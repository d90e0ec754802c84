#include "train/log/csv_log.h"

#include <cmath>

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

using CsvLogTest = FileTest;

TEST_F(CsvLogTest, GetsAColumnForEveryName) {
    CsvLog log(path("m.csv"));
    log.write(1, {{"epoch", 0.25}, {"loss", 2.5}});
    log.write(1, {{"epoch", 0.25}, {"eval_loss", 2.25}});
    log.write(2, {{"epoch", 0.5}, {"loss", std::nan("")}, {"grad_norm", 1e-300}});
    EXPECT_EQ(slurp(path("m.csv")),
              "step,epoch,loss,eval_loss,grad_norm\n1,0.25,2.5,,\n1,0.25,,2.25,\n2,0.5,nan,,1e-300\n");
}

TEST_F(CsvLogTest, GoesOnAfterTheResumedStep) {
    {
        CsvLog log(path("m.csv"));
        for (int step = 1; step <= 4; ++step) log.write(step, {{"epoch", 0.5}, {"loss", step}});
    }
    spill(path("m.csv"), slurp(path("m.csv")) + "5,0.");  // a killed run
    CsvLog log(path("m.csv"), 2);
    log.write(3, {{"epoch", 0.5}, {"loss", 30}, {"lr", 1}});
    EXPECT_EQ(slurp(path("m.csv")), "step,epoch,loss,lr\n1,0.5,1,\n2,0.5,2,\n3,0.5,30,1\n");
    CsvLog anew(path("m.csv"));
    EXPECT_EQ(slurp(path("m.csv")), "step,epoch\n");
}

TEST_F(CsvLogTest, RefusesAnotherTable) {
    spill(path("m.csv"), "name,value\na,1\n");
    expect_error(Exit::data, "m.csv: expected a first line that begins with step,epoch",
                 [&] { CsvLog(path("m.csv"), 1); });
}

}  // namespace
}  // namespace colonnade
