// doctor: examines the machine and says what is wrong with it, and what to do.

#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/doctor/doctor.h"

namespace colonnade {

Work doctor_command(CLI::App& app) {
    struct Options {
        std::string folder = ".", json;
    };
    const auto o = std::make_shared<Options>();
    app.add_option("--folder", o->folder, "whose disk is measured: 256 MiB are written, read and removed")
        ->type_name("FOLDER")
        ->capture_default_str();
    app.add_option("--json", o->json, "write the items to this file, or to stdout if -")->type_name("FILE");
    app.footer("Exit code 0 if all works, also with notes; 1 if something is WRONG.");
    return [o] {
        const std::vector<Item> items = examine({.folder = o->folder, .driver = driver_report()});
        if (o->json != "-") fmt::print("{}", text_of(items));
        if (o->json == "-")
            fmt::print("{}\n", json_of(items).dump(2));
        else if (!o->json.empty())
            write_file_atomically(o->json, json_of(items).dump(2) + "\n");
        return all_work(items) ? 0 : 1;
    };
}

}  // namespace colonnade
