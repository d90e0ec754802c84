// completion: prints the script of a shell. complete: what the scripts call.

#include "engine/io/files.h"
#include "train/program/commands.h"
#include "train/program/completion.h"

namespace colonnade {
namespace {

/// Words on the left of a line, what they mean on the right, with a tab between them.
void print_candidates(const std::vector<Candidate>& candidates) {
    for (const Candidate& c : candidates) {
        if (c.text.find_first_of("\n\t") != std::string::npos) continue;
        fmt::print("{}{}{}\n", c.text, c.about.empty() ? "" : "\t", c.about);
    }
}

// The program is called as the user calls it. Bash breaks words at '=' and ':', so that a candidate begins after the
// last of them.
constexpr const char* bash_script = R"SH(# bash completion of colonnade; written by `colonnade completion bash`
_colonnade() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} word candidate cut
    local -a words
    read -ra words <<<"$line"
    case $line in *[[:space:]]) words+=('') ;; esac
    word=${words[${#words[@]} - 1]}
    case $current in '=' | ':') current= ;; esac
    cut=${word%"$current"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        candidate=${candidate#"$cut"}
        case $candidate in
            *[/=]) ;;
            *) candidate+=' ' ;;
        esac
        case ${candidate%' '} in *[[:space:]]*) candidate=$(printf %q "${candidate%' '}")' ' ;; esac
        COMPREPLY+=("$candidate")
    done < <("${COMP_WORDS[0]/#\~/$HOME}" complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o nospace -F _colonnade colonnade
)SH";

constexpr const char* zsh_script = R"SH(#compdef colonnade
# zsh completion of colonnade; written by `colonnade completion zsh`
_colonnade() {
    local line candidate about
    local -a closed open closed_shown open_shown
    for line in ${(f)"$(${~words[1]} complete -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)"}; do
        candidate=${line%%$'\t'*} about=
        [[ $line == *$'\t'* ]] && about=${line#*$'\t'}
        if [[ $candidate == *[/=] ]]; then
            open+=("$candidate") open_shown+=("$candidate${about:+  -- $about}")
        else
            closed+=("$candidate") closed_shown+=("$candidate${about:+  -- $about}")
        fi
    done
    (( $#open )) && compadd -l -S '' -d open_shown -a open
    (( $#closed )) && compadd -l -d closed_shown -a closed
    (( $#open + $#closed ))
}
if [ "$funcstack[1]" = _colonnade ]; then _colonnade "$@"; else compdef _colonnade colonnade; fi
)SH";

constexpr const char* fish_script = R"SH(# fish completion of colonnade; written by `colonnade completion fish`
function __colonnade_complete
    set -l words (commandline -opc)
    $words[1] complete -- $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c colonnade -f -a '(__colonnade_complete)'
)SH";

}  // namespace

std::string completion_script(const std::string& shell) {
    return shell == "bash" ? bash_script : shell == "zsh" ? zsh_script : fish_script;
}

Work completion_command(CLI::App& app) {
    struct Options {
        std::string shell, output;
    };
    const auto o = std::make_shared<Options>();
    app.add_option("shell", o->shell, "the shell")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
    app.add_option("--output,-o", o->output, "write it to this file")->type_name("FILE");
    app.footer(
        "For one session: source <(colonnade completion bash). An installation has all of them where the shells look.");
    return [o] {
        const std::string script = completion_script(o->shell);
        if (o->output.empty())
            fmt::print("{}", script);
        else
            write_file_atomically(o->output, script);
        return 0;
    };
}

Work complete_command(CLI::App& app) {
    const auto words = std::make_shared<std::vector<std::string>>();
    app.add_option("words", *words, "words of a command line, the last one unfinished; after --");
    return [words] {
        print_candidates(complete(*words));
        return 0;
    };
}

}  // namespace colonnade
