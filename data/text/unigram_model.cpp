#include "data/text/unigram_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>

#include "data/text/tokenizer_json.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr double unknown_penalty = 10;
constexpr size_t longest_piece = limits::token_bytes;  // each place of a text is compared with that many bytes
constexpr uint64_t no_edge = ~uint64_t{0};

uint64_t edge_key(uint32_t node, char byte) {
    return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

/// The package's JSON library (serde_json) rounds twice: it reads the digits as an integer, and divides that by a power
/// of ten. The last bit decides between ways whose sums are equal. `score` is read exactly; its shortest digits are
/// those of the file.
double rounded_as_serde_json(double score) {
    char text[32];
    const auto end = std::to_chars(text, std::end(text), std::abs(score), std::chars_format::scientific).ptr;
    const std::string_view written(text, static_cast<size_t>(end - text));
    const size_t e = written.find('e');
    uint64_t digits = 0;
    int exponent = std::atoi(std::string(written.substr(e + 1)).c_str());
    for (const char c : written.substr(0, e))
        if (c != '.') digits = digits * 10 + static_cast<uint64_t>(c - '0');
    if (e > 2) exponent -= static_cast<int>(e) - 2;  // digits behind the point
    const auto whole = static_cast<double>(digits);
    const double value = exponent < 0 ? whole / std::pow(10.0, -exponent) : whole * std::pow(10.0, exponent);
    return score < 0 ? -value : value;
}

}  // namespace

UnigramModel::UnigramModel(const Json& json, const std::string& where) : where_(where) {
    byte_fallback_ = json_flag(json, "byte_fallback", false, where + ": model");
    read_pieces(json, where);
    const auto unknown = json.find("unk_id");
    if (unknown == json.end() || unknown->is_null()) return;
    if (!unknown->is_number_unsigned() || *unknown >= scores_.size())
        fail(Exit::data, "{}: model.unk_id: expected the id of a piece, found {:.40}", where, unknown->dump());
    unknown_ = unknown->get<int32_t>();
}

void UnigramModel::read_pieces(const Json& json, const std::string& where) {
    const auto vocab = json.find("vocab");
    if (vocab == json.end() || !vocab->is_array())
        fail(Exit::data, "{}: model.vocab: expected an array of pieces and scores", where);
    size_t bytes = 0;
    for (const Json& entry : *vocab) {
        if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
            fail(Exit::data, "{}: model.vocab: expected a piece and its score, found {:.100}", where, entry.dump());
        const auto& piece = entry[0].get_ref<const std::string&>();
        if (piece.size() > longest_piece)
            fail(Exit::data, "{}: model.vocab: piece '{:.40}...' has {} bytes, expected at most {}", where, piece,
                 piece.size(), longest_piece);
        bytes += piece.size();
    }
    size_t slots = 16;
    while (slots < 2 * bytes) slots *= 2;
    edges_.assign(slots, {no_edge, 0});
    node_ids_.assign(1, -1);
    double lowest = std::numeric_limits<double>::infinity();
    vocabulary_.reserve(vocab->size());
    for (const Json& entry : *vocab) {
        const auto& piece = entry[0].get_ref<const std::string&>();
        const auto id = static_cast<int32_t>(scores_.size());
        add_piece(piece, id, where);
        scores_.push_back(rounded_as_serde_json(entry[1]));
        lowest = std::min(lowest, scores_.back());
        if (!piece.empty()) add_to_trie(piece, id);
    }
    unknown_score_ = lowest - unknown_penalty;
}

void UnigramModel::add_to_trie(std::string_view piece, int32_t id) {
    uint32_t node = 0;
    for (const char byte : piece) {
        const uint64_t key = edge_key(node, byte);
        size_t slot = mix(key, 0x9E3779B97F4A7C15u) & (edges_.size() - 1);
        while (edges_[slot].key != no_edge && edges_[slot].key != key) slot = (slot + 1) & (edges_.size() - 1);
        if (edges_[slot].key == no_edge) {
            edges_[slot] = {key, static_cast<uint32_t>(node_ids_.size())};
            node_ids_.push_back(-1);
        }
        node = edges_[slot].node;
    }
    node_ids_[node] = id;
}

uint32_t UnigramModel::child(uint32_t node, char byte) const {
    const uint64_t key = edge_key(node, byte);
    for (size_t slot = mix(key, 0x9E3779B97F4A7C15u) & (edges_.size() - 1);; slot = (slot + 1) & (edges_.size() - 1))
        if (edges_[slot].key == key)
            return edges_[slot].node;
        else if (edges_[slot].key == no_edge)
            return 0;
}

/// The best way to each place, from the left; of two equal ones the first stays. Neighbouring unknown characters count
/// as one text.
void UnigramModel::encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache&) const {
    constexpr size_t nowhere = ~size_t{0};
    struct Best {
        double score = 0;
        size_t begin = nowhere;
        int32_t id = -1;
    };
    std::vector<Best> best(word.size() + 1);
    const auto offer = [&best](size_t begin, size_t end, double score, int32_t id) {
        score += best[begin].score;
        if (best[end].begin == nowhere || score > best[end].score) best[end] = {score, begin, id};
    };
    for (size_t begin = 0, next = 0; begin < word.size(); begin = next) {
        next = begin + character_at(word.data() + begin).bytes;
        bool known = false;
        uint32_t node = 0;
        for (size_t end = begin; end < word.size();) {
            node = child(node, word[end++]);
            if (node == 0) break;
            if (node_ids_[node] < 0) continue;
            offer(begin, end, scores_[static_cast<size_t>(node_ids_[node])], node_ids_[node]);
            known = known || end == next;
        }
        if (!known) offer(begin, next, unknown_score_, unknown_);
        if (best[next].begin != nowhere && best[next].id < 0)
            fail(Exit::data, "{}: model: it has no piece for '{:.40}' and no unk_id", where_,
                 word.substr(begin, next - begin));
    }
    std::vector<Best> path;
    for (size_t end = word.size(); end > 0; end = best[end].begin) path.push_back(best[end]);
    std::reverse(path.begin(), path.end());
    for (size_t i = 0; i < path.size();) {
        size_t last = i + 1;
        while (path[i].id == unknown_ && last < path.size() && path[last].id == unknown_) ++last;
        const size_t end = last < path.size() ? path[last].begin : word.size();
        if (path[i].id == unknown_)
            append_unknown(word.substr(path[i].begin, end - path[i].begin), ids);
        else
            ids.push_back(path[i].id);
        i = last;
    }
}

void UnigramModel::append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
    if (const int32_t id = id_of(text); id >= 0) return ids.push_back(id);
    const size_t before = ids.size();
    for (size_t i = 0; byte_fallback_ && i < text.size(); ++i) {
        const int32_t id = id_of(fmt::format("<0x{:02X}>", static_cast<unsigned char>(text[i])));
        if (id < 0) {
            ids.resize(before);
            break;
        }
        ids.push_back(id);
    }
    if (ids.size() == before) ids.push_back(unknown_);
}

}  // namespace colonnade
