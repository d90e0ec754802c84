// fuzz: fuzzing sessions; scripts/fuzz.sh builds it under sanitizers and runs it.
//
//     fuzz --list                        the formats
//     fuzz FORMAT... --seconds 60        a session of each
//     fuzz FORMAT... --inputs 8000       a session of each, the same every time
//     fuzz --kept DIR --distil 20        leaves the 20 kept inputs of each format that reach the most
//     fuzz --replay FILE                 reads a file that a session kept; its name says the format

#include <algorithm>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/program/command_line.h"
#include "tests/fuzz/session.h"

namespace colonnade {
namespace {

const NamedFormat& find_format(const std::vector<NamedFormat>& formats, const std::string& name) {
    const auto found = std::ranges::find(formats, name, &NamedFormat::name);
    if (found == formats.end()) fail(Exit::config, "no format '{}'; fuzz --list names them", name);
    return *found;
}

/// "gguf-0123456789ab" is of gguf.
int replay_file(const std::vector<NamedFormat>& formats, const std::string& file) {
    const std::string name = std::filesystem::path(file).filename();
    fmt::print("{}\n", replay(find_format(formats, name.substr(0, name.rfind('-'))), file));
    return 0;
}

void print(const std::string& name, const FuzzOutcome& o) {
    fmt::print(
        "{:<20} {:>9} inputs in {:>6.1f} s, edges {:>6} of seeds, {:>6} in all, {:>5} inputs with a new one, "
        "slowest {:.2f} s, {} failures\n",
        name, o.inputs, o.seconds, o.edges_of_seeds, o.edges, o.kept, o.slowest, o.failures.size());
    std::fflush(stdout);
}

struct Arguments {
    std::vector<std::string> names;
    std::string file, kept;
    size_t distilled = 0;
    FuzzRequest request{.failures = "fuzz-failures"};
    bool list = false, blind = false;
};

int run(Arguments& a) {
    const std::vector<NamedFormat> formats = all_formats();
    if (!a.file.empty()) return replay_file(formats, a.file);
    if (a.list) {
        for (const NamedFormat& format : formats) fmt::print("{}\n", format.name);
        return 0;
    }
    if (a.names.empty())
        for (const NamedFormat& format : formats) a.names.push_back(format.name);
    if (a.blind) a.request.guidance = Guidance::blind;
    const bool counted = a.request.inputs != FuzzRequest().inputs;
    bool failed = false;
    for (const std::string& name : a.names) {
        if (!a.kept.empty()) std::filesystem::create_directories(a.request.kept = a.kept + "/" + name);
        if (a.distilled > 0) {
            distil(find_format(formats, name), a.request.kept, a.distilled);
            continue;
        }
        const NamedFormat& format = find_format(formats, name);
        FuzzRequest request = a.request;
        if (counted) request.inputs /= format.slowness;
        const FuzzOutcome outcome = fuzz(format, request);
        print(name, outcome);
        for (const std::string& failure : outcome.failures) fmt::print(stderr, "{}\n", failure);
        const bool late = counted && outcome.failures.empty() && outcome.inputs < request.inputs;
        if (late)
            fmt::print(stderr, "{}: {} of {} inputs in {:.0f} s; give more --seconds\n", name, outcome.inputs,
                       request.inputs, outcome.seconds);
        failed = failed || late || !outcome.failures.empty();
    }
    return failed ? 1 : 0;
}

}  // namespace
}  // namespace colonnade

int main(int argc, char** argv) {
    CLI::App app("Feeds mutated files to the readers of other people's files");
    colonnade::Arguments a;
    app.add_option("FORMAT", a.names, "Formats; default: all");
    app.add_option("--seconds", a.request.seconds, "Of each session; with --inputs: at most, or it fails");
    app.add_option("--inputs", a.request.inputs,
                   "Mutated inputs of each session, fewer of slow formats: the same for the same seed");
    app.add_option("--seed", a.request.seed, "Of the random numbers");
    app.add_option("--kept", a.kept, "Folder: FORMAT/ in it has inputs to begin with, and gets those with new edges");
    app.add_option("--failures", a.request.failures, "Folder for inputs that fail")->capture_default_str();
    app.add_option("--replay", a.file, "Reads this file, which a session kept, and says what came of it");
    CLI::Option* kept = app.get_option("--kept");
    app.add_option("--distil", a.distilled, "Deletes kept inputs until so many are left for each format")->needs(kept);
    app.add_flag("--blind", a.blind, "Without guidance by coverage");
    app.add_flag("--list", a.list, "Prints the formats");
    return colonnade::run_command("fuzz", app, argc, argv, [&] { return colonnade::run(a); });
}
