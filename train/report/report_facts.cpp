#include "train/report/report_facts.h"

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/json.h"

namespace colonnade {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Bin, begin, end, count)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TilePicture, tokens, tile, classes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(NoteFact, effect, label, rows, first)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(FileFact, path, type, rows, samples)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(SplitFact, name, files, notes, rows, samples, tokens, learned, lengths)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(ReportFacts, model, device, given, plan, splits, sharing, packed_rows,
                                                packing_length, fill, mask, memory, peak, unigram_loss)

namespace {

constexpr const char* report_format = "colonnade-report";

std::string facts_path(const std::string& output_dir) {
    return output_dir + "/report.json";
}

}  // namespace

void write_facts(const std::string& output_dir, const ReportFacts& facts) {
    nlohmann::json json = facts;
    json["format"] = report_format;
    write_file_atomically(facts_path(output_dir),
                          json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

ReportFacts read_facts(const std::string& output_dir) {
    const std::string path = facts_path(output_dir);
    if (!path_exists(path)) return {};
    try {
        const nlohmann::json json = read_json_file(path);
        if (!json.is_object() || json.value("format", nlohmann::json()) != report_format)
            fail(Exit::data, "{}: expected \"format\": \"{}\"; remove the file, and the report lacks what it had", path,
                 report_format);
        return json.get<ReportFacts>();
    } catch (const nlohmann::json::exception& e) {
        fail(Exit::data, "{}: {}; remove the file, and the report lacks what it had", path, e.what());
    }
}

}  // namespace colonnade
