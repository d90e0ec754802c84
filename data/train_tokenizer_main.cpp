// train_tokenizer: trains a SentencePiece model on text and JSONL files.

#include "data/text/tokenizer.h"
#include "data/text/tokenizer_training.h"
#include "engine/program/command_line.h"

int main(int argc, char** argv) {
    using namespace colonnade;
    TokenizerTraining options;
    CLI::App app(
        "Trains a SentencePiece tokenizer on text files (one sentence per line) and on the texts of JSONL rows.");
    app.add_option("--text", options.text_files, "text or .jsonl file; may be repeated")->required();
    app.add_option("--output", options.output, "path without extension; writes OUTPUT.model and OUTPUT.vocab")
        ->required();
    app.add_option("--vocab-size", options.vocab_size, "number of pieces")->capture_default_str();
    app.add_option("--model-type", options.model_type, "bpe or unigram")->capture_default_str();
    app.add_option("--special", options.special_tokens,
                   "text that is always one token, such as <|im_start|>; may be repeated");
    app.add_option("--threads", options.threads, "number of threads")->capture_default_str();
    return run_command("train_tokenizer", app, argc, argv, [&] {
        train_tokenizer(options);
        const auto tokenizer = Tokenizer::load(options.output + ".model");
        fmt::print("{}: {} pieces\n", tokenizer->path(), tokenizer->vocab_size());
        return 0;
    });
}
