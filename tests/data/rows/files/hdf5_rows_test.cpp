// Rows of HDF5 files: arrays of every type as JSON, refused shapes, and the rows of a teacher from end to end.

#include "data/rows/files/hdf5_rows.h"

#include "data/rows/rows.h"
#include "engine/device/float16.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

class Hdf5RowsTest : public FileTest {
  protected:
    template <typename T>
    static Tensor tensor(std::vector<T>& values, DType dtype, std::initializer_list<int64_t> shape) {
        return Tensor(values.data(), dtype, shape);
    }
    /// Two rows of 2 and 1 entries. `change` may write more arrays.
    std::string file(const std::function<void(Hdf5Writer&)>& change, std::vector<int64_t> begins = {0, 2, 3}) const {
        const std::string name = path("rows.h5");
        std::filesystem::remove(name);
        Hdf5Writer writer(name);
        writer.write("row_begins", view_of(begins));
        change(writer);
        writer.close();
        return name;
    }
    static std::vector<std::string> read(const std::string& name) {
        const std::unique_ptr<RowSource> source = open_rows(name);
        std::vector<std::string> rows;
        int64_t number = 0;
        for (std::string row; source->next(row, number);) {
            rows.push_back(row);
            EXPECT_EQ(number, std::ssize(rows));
        }
        EXPECT_EQ(source->progress(), 1);
        return rows;
    }
};

TEST_F(Hdf5RowsTest, ArraysOfEveryType) {
    std::vector<int32_t> ids = {5, 6, 7}, lists = {1, 2, 3, 4, 5, -1};
    std::vector<int64_t> longs = {1LL << 40, -1, 0};
    std::vector<uint8_t> mask = {0, 1, 1};
    std::vector<uint16_t> halves(6, 0xC000);  // -2
    halves[3] = 0xFC00;                       // -inf
    std::vector<float> weights = {0.1f, 3};
    std::vector<double> doubles = {0.1, 1e300, -0.5};
    const std::string name = file([&](Hdf5Writer& to) {
        to.write("input_ids", view_of(ids));
        to.write("longs", view_of(longs));
        to.write("mask", view_of(mask));
        to.write("teacher_ids", tensor(lists, DType::i32, {3, 2}));
        to.write("teacher_log_probs", tensor(halves, DType::f16, {3, 2}));
        to.write("weight", view_of(weights));
        to.write("x", view_of(doubles));
    });
    EXPECT_EQ(read(name),
              (std::vector<std::string>{
                  R"({"input_ids":[5,6],"longs":[1099511627776,-1],"mask":[0,1],"teacher_ids":[[1,2],[3,4]],)"
                  R"("teacher_log_probs":[[-2.0,-2.0],[-2.0,-Infinity]],"weight":0.1,"x":[0.1,1e+300]})",
                  R"({"input_ids":[7],"longs":[0],"mask":[1],"teacher_ids":[[5,-1]],"teacher_log_probs":[[-2.0,-2.0]],)"
                  R"("weight":3.0,"x":[-0.5]})"}));
    EXPECT_EQ(open_rows(name)->count(), 2);
}

TEST_F(Hdf5RowsTest, RowsOfATeacher) {
    std::vector<int32_t> ids = {5, 6, 7}, lists = {0, -1, 6, 2, 0, -1};
    std::vector<float> log_probs = {0, 0, -0.5f, -2, 0, 0};
    const std::string name = file([&](Hdf5Writer& to) {
        to.write("input_ids", view_of(ids));
        to.write("teacher_ids", tensor(lists, DType::i32, {3, 2}));
        to.write("teacher_log_probs", tensor(log_probs, DType::f32, {3, 2}));
    });
    RowReader rows({.path = name}, RowKind::taught);
    Row row;
    ASSERT_TRUE(rows.next(row));
    EXPECT_EQ(rows.type(), "tokens");
    EXPECT_EQ(row.answers.at(0).input_ids, (std::vector<int32_t>{5, 6}));
    EXPECT_EQ(row.answers.at(0).score->teacher.ids, (std::vector<int32_t>{6, 2}));  // nothing predicts the first token
    EXPECT_EQ(row.answers.at(0).score->teacher.log_probs, (std::vector<float>{-0.5f, -2}));
}

TEST_F(Hdf5RowsTest, OtherFilesAreRefused) {
    std::vector<int32_t> ids = {5, 6, 7};
    std::vector<float> four(4);
    const auto refused = [&](const std::string& part, const std::function<void(Hdf5Writer&)>& change,
                             std::vector<int64_t> begins = {0, 2, 3}) {
        const std::string name = file(change, std::move(begins));
        expect_error(Exit::data, part, [&] { open_rows(name); });
    };
    refused("'four' has shape [4]; expected [3] or [3, k] for the entries of all rows, or [2] for rows",
            [&](Hdf5Writer& to) { to.write("four", view_of(four)); });
    const auto nothing = [](Hdf5Writer&) {};
    refused("row_begins[2] is 2, expected more than 2", nothing, {0, 2, 2});
    refused("'row_begins' has 1 entries; expected 0, and then where each row ends", nothing, {0});
    std::filesystem::remove(path("rows.h5"));
    Hdf5Writer writer(path("rows.h5"));
    writer.write("input_ids", view_of(ids));
    writer.close();
    expect_error(Exit::data, "an HDF5 file without 'row_begins'; found: input_ids",
                 [&] { open_rows(path("rows.h5")); });
}

}  // namespace
}  // namespace colonnade
