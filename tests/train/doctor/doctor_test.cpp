// doctor: on a machine with and without a GPU and a driver; what is wrong has a remedy and the exit code 1.

#include "train/doctor/doctor.h"

#include <cstdlib>

#include "engine/device/threads.h"
#include "tests/support/file_test.h"
#include "tests/support/program.h"
#include "tests/support/test_gpu.h"

namespace colonnade {
namespace {

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

const Item& named(const std::vector<Item>& items, const std::string& name) {
    for (const Item& item : items)
        if (item.name == name) return item;
    static const Item none;
    ADD_FAILURE() << "no item " << name;
    return none;
}

class Doctor : public FileTest {
  protected:
    DoctorOptions options() const { return {.folder = folder_, .disk_bytes = 1 << 20, .driver = {}}; }
    /// OpenBLAS's kernels in a program that is started with a value of OPENBLAS_CORETYPE, or without one (null).
    std::string kernels_of_program(const char* wanted) const {
        const Program::Result result = run("colonnade", {"doctor", "--folder", folder_, "--json", "-"}, [&] {
            wanted ? setenv("OPENBLAS_CORETYPE", wanted, 1) : unsetenv("OPENBLAS_CORETYPE");
        });
        EXPECT_LE(result.exit, 1) << result.err;
        const std::string name = "OpenBLAS ";  // its version and the kernels follow
        const size_t version = result.out.find(name) + name.size(), kernels = result.out.find(' ', version) + 1;
        return result.out.substr(kernels, result.out.find_first_of(" \",", kernels) - kernels);
    }
};

TEST_F(Doctor, NeedsNoGpu) {
    const std::vector<Item> items = examine(options());
    for (const char* name :
         {"CPU", "memory", "limits", "driver", "CUDA", "NCCL", "MPI", "libraries", "disk", "space", "hub"})
        EXPECT_FALSE(named(items, name).found.empty()) << name;
    for (const Item& item : items) EXPECT_EQ(item.remedy.empty(), item.health == Health::good) << item.name;
    EXPECT_TRUE(has(named(items, "disk").found, "writes ")) << named(items, "disk").found;
    EXPECT_EQ(listing(folder_), "") << "it left a file";
    EXPECT_TRUE(has(named(items, "libraries").found, "libc.so")) << named(items, "libraries").found;
}

TEST_F(Doctor, MeasuresEveryGpu) {
    if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
    DoctorOptions with_driver = options();
    with_driver.driver = driver_report();
    const std::vector<Item> items = examine(with_driver);
    EXPECT_TRUE(has(named(items, "GPU 0").found, "sm_")) << text_of(items);
    EXPECT_TRUE(has(named(items, "GPU 0 pinned").found, "GB/s")) << text_of(items);
    EXPECT_TRUE(with_driver.driver.found);
    EXPECT_TRUE(has(named(items, "GPU 0 state").found, "MHz")) << text_of(items);
    EXPECT_TRUE(has(named(items, "CUDA").found, "cuBLASLt")) << text_of(items);
}

TEST_F(Doctor, ReadsTheStateOfGpus) {
    const DriverReport report = driver_report(FAKE_NVML);
    ASSERT_TRUE(report.found);
    EXPECT_EQ(report.driver, "580.65.06");
    ASSERT_EQ(report.gpus.size(), 2u);
    EXPECT_FALSE(report.gpus[0].celsius.has_value());
    const std::vector<Item> items = gpu_items(report);
    EXPECT_TRUE(has(named(items, "driver").found, "for CUDA up to 13.0, 2 GPUs")) << text_of(items);
    const Item &well = named(items, "GPU 0 state"), &ill = named(items, "GPU 1 state");
    EXPECT_EQ(well.found, "1980 of 1980 MHz, power cap 700 of 700 W, ECC on, 0 uncorrected errors");
    EXPECT_EQ(well.health, Health::good);
    EXPECT_EQ(ill.found, "900 of 1980 MHz, power cap 400 of 700 W, ECC on, 3 uncorrected errors, slowed by heat");
    EXPECT_EQ(ill.health, Health::bad);
    EXPECT_FALSE(all_work(items));
    DriverReport hot = report;
    hot.gpus[1].uncorrected_errors = 0;
    EXPECT_EQ(named(gpu_items(hot), "GPU 1 state").health, Health::note);
    hot.gpus[1].slowed_by.clear();
    EXPECT_TRUE(has(named(gpu_items(hot), "GPU 1 state").remedy, "nvidia-smi -i 1 -pl 700"));
}

TEST_F(Doctor, SaysThatTheDriverDoesNotAnswer) {
    setenv("FAKE_NVML", "broken", 1);
    const DriverReport report = driver_report(FAKE_NVML);
    unsetenv("FAKE_NVML");
    EXPECT_FALSE(report.found);
    EXPECT_TRUE(has(report.problem, "does not answer")) << report.problem;
    EXPECT_EQ(named(gpu_items(report), "driver").health, Health::bad);
    EXPECT_EQ(driver_report(path("none.so")).problem, "") << "a machine without NVIDIA's driver is well";
}

TEST_F(Doctor, ProductsUseKernelsForThisProcessor) {
#ifndef __x86_64__
    GTEST_SKIP() << "names kernels of x86-64";
#endif
    EXPECT_EQ(kernels_of_program("Nehalem"), "Nehalem") << "the environment has it";
    const std::string chosen = kernels_of_program(nullptr);
    EXPECT_FALSE(chosen.empty());
    EXPECT_EQ(better_kernels(chosen), nullptr) << chosen;
    EXPECT_NE(better_kernels("Prescott"), nullptr);
    EXPECT_EQ(better_kernels("Zen"), nullptr);
}

TEST_F(Doctor, TheProgramHasAnExitCodeAndJson) {
    const Program::Result result = run("colonnade", {"doctor", "--folder", folder_, "--json", path("items.json")});
    const Json json = read_json_file(path("items.json"));
    EXPECT_EQ(result.exit, json.at("works").get<bool>() ? 0 : 1) << result.out;
    EXPECT_GE(json.at("items").size(), 11u);
    for (const char* part : {"disk", "libstdc++", "libsentencepiece", "libcurl"})
        EXPECT_TRUE(has(result.out, part)) << result.out;
    const Program::Result wrong = run("colonnade", {"doctor", "--folder", path("missing"), "--json", "-"});
    EXPECT_EQ(wrong.exit, 1) << wrong.out;
    const Json items = parse_json(wrong.out, "stdout").at("items");
    for (const Json& item : items) {
        const std::string name = item.at("name");
        const bool of_folder = name == "disk" || name == "space";
        EXPECT_TRUE(!of_folder || item.at("verdict") == "WRONG") << item.dump();
    }
}

}  // namespace
}  // namespace colonnade
