// own_file: links that real model folders have are followed, others are refused before anything is read.

#include "engine/io/own_file.h"

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class OwnFile : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        for (const char* folder : {"home", "home/parts", "other"}) fs::create_directory(path(folder));
    }
    /// A link at `from` to an existing file `to`.
    void link(const std::string& from, const std::string& to) const {
        fs::create_directories(fs::path(path(to)).parent_path());
        spill(path(to), "content");
        fs::remove(path(from));
        fs::create_symlink(path(to), path(from));
    }
    bool follows(const std::string& file, const std::string& folder = "home") const {
        try {
            EXPECT_EQ(own_file(path(folder), path(file)), path(file));
            return true;
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), Exit::data);
            return false;
        }
    }
};

TEST_F(OwnFile, FilesAndLinksWithinTheFolder) {
    spill(path("home/a.json"), "");
    EXPECT_TRUE(follows("home/a.json"));
    EXPECT_TRUE(follows("home/missing.json"));
    EXPECT_TRUE(follows("nowhere/a.json", "nowhere"));
    link("home/b.json", "home/parts/other-name.json");
    EXPECT_TRUE(follows("home/b.json"));
    // As Kubernetes mounts a folder.
    fs::create_directory(path("home/..2026"));
    spill(path("home/..2026/c.json"), "");
    fs::create_directory_symlink("..2026", path("home/..data"));
    fs::create_symlink("..data/c.json", path("home/c.json"));
    EXPECT_TRUE(follows("home/c.json"));
    // The folder itself may be reached by a link, and its name may be the beginning of another one.
    fs::create_directory_symlink(path("home"), path("alias"));
    EXPECT_TRUE(follows("alias/b.json", "alias"));
    link("home/d.json", "home-secrets/key.json");
    EXPECT_FALSE(follows("home/d.json"));
}

TEST_F(OwnFile, BlobsOfAHubCache) {
    const std::string snapshot = "hub/models--org--name/snapshots/0123abc", blobs = "hub/models--org--name/blobs/";
    fs::create_directories(path(snapshot));
    for (const auto& [name, blob] :
         {std::pair{"tokenizer.json", std::string(40, 'a')}, {"model.safetensors", std::string(64, '0')}}) {
        link(blobs + blob, blobs + blob + "0");
        spill(path(blobs + blob), "");
        fs::create_symlink("../../blobs/" + blob, path(snapshot + "/" + name));
        EXPECT_TRUE(follows(snapshot + "/" + name, snapshot)) << name;
    }
    link("home/a.json", "dvc/files/md5/ab/" + std::string(30, 'c'));
    EXPECT_TRUE(follows("home/a.json"));
    for (const std::string& name :
         {std::string(29, 'a'), std::string(40, 'A'), std::string(40, 'g'), std::string(40, 'a') + ".key"}) {
        link("home/b.json", "other/" + name);
        EXPECT_FALSE(follows("home/b.json")) << name;
    }
}

TEST_F(OwnFile, TheSameFileOfAnotherModel) {
    link("home/tokenizer.json", "other/tokenizer.json");
    EXPECT_TRUE(follows("home/tokenizer.json"));
    link("home/tokenizer_config.json", "other/credentials.json");
    EXPECT_FALSE(follows("home/tokenizer_config.json"));
    expect_error(Exit::data,
                 path("home/tokenizer_config.json") + ": is a symbolic link to " + path("other/credentials.json") +
                     ", which lies outside of the folder and has another name; copy it into the folder",
                 [&] { own_file(path("home"), path("home/tokenizer_config.json")); });
}

TEST_F(OwnFile, ChainsAndFoldersOfLinks) {
    link("home/a.json", "other/secret");
    fs::create_symlink(path("home/a.json"), path("home/b.json"));
    EXPECT_FALSE(follows("home/b.json"));
    fs::create_directory_symlink(path("other"), path("home/templates"));
    EXPECT_TRUE(follows("home/templates/secret")) << "the same name";
    fs::create_symlink(path("other/secret"), path("other/x.jinja"));
    EXPECT_FALSE(follows("home/templates/x.jinja"));
    fs::create_symlink(path("home/loop"), path("home/loop"));
    EXPECT_TRUE(follows("home/loop")) << "opening it gives the error";
}

}  // namespace
}  // namespace colonnade
