// libhdf5.a reads files on Amazon's S3 by libcurl, if a program asks for it. Colonnade does not. These functions stand
// in for the eight that it calls, so that libcurl is not linked for nothing: there is no session, and the rest fails.

extern "C" {

using Session = void;
struct List;
constexpr int failed = 2;  // CURLE_FAILED_INIT

int curl_global_init(long) {
    return failed;
}
void curl_global_cleanup() {}
Session* curl_easy_init() {
    return nullptr;
}
void curl_easy_cleanup(Session*) {}
int curl_easy_setopt(Session*, int, ...) {
    return failed;
}
int curl_easy_perform(Session*) {
    return failed;
}
List* curl_slist_append(List*, const char*) {
    return nullptr;
}
void curl_slist_free_all(List*) {}
}
