// Reads aligned blocks of files on threads of its own, past the page cache where the file system allows it.
//
// A read is split into parts, so that several threads fetch one block and the disk sees many requests at once. A read
// that fails, ends early or has a wrong checksum is an error of its ticket; nothing is retried but EINTR.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace flashgate {

// A file could not be opened or read as asked: the message names it, where, and why.
struct ReadError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Reader {
public:
    static constexpr size_t kAlignment = 4096;

    // Throws ReadError if a path cannot be opened as a regular file.
    Reader(std::vector<std::string> paths, size_t num_threads, bool direct);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // Starts filling out[0 ... size); offset, size and address are multiples of kAlignment. `out` must stay valid until
    // wait() has returned or the reader is closed. Throws std::invalid_argument after close().
    uint64_t read(size_t file, uint64_t offset, uint8_t* out, size_t size, std::optional<uint32_t> crc);
    // Blocks until the read has ended, and forgets the ticket. Throws ReadError if it failed, std::invalid_argument
    // for a ticket that is not open.
    void wait(uint64_t ticket);
    bool is_done(uint64_t ticket);

    // Drops reads that have not begun (they fail), lets those that have finish, and ends the threads.
    void close();

    bool direct() const;
    size_t num_files() const { return files_.size(); }
    uint64_t bytes_read() const { return bytes_read_; }
    double busy_seconds();  // time with at least one read in flight

private:
    using Clock = std::chrono::steady_clock;

    struct File {
        std::string path;
        int fd = -1;
        std::atomic<bool> direct{false};
    };
    struct Request {
        size_t file;
        uint64_t offset;
        uint8_t* out;
        size_t size;
        std::optional<uint32_t> crc;
        size_t parts_left;
        std::string error;  // the first one
        bool is_done = false;
    };
    struct Part {
        Request* request;
        size_t begin, end;
    };

    void open(File& file, std::string path, bool direct);
    void work();
    static void stop_direct(File& file);
    std::string read_part(const Part& part);
    std::string check(const Request& request) const;
    void finish_part(std::unique_lock<std::mutex>& lock, Request& request, std::string error);
    Request& find(uint64_t ticket);

    std::vector<File> files_;
    std::mutex mutex_;
    std::condition_variable queued_, ended_;
    std::deque<Part> queue_;
    std::map<uint64_t, Request> requests_;  // by ticket; a map, because parts point at its elements
    uint64_t next_ticket_ = 1;
    size_t in_flight_ = 0;
    Clock::time_point busy_since_;
    Clock::duration busy_{0};
    std::atomic<uint64_t> bytes_read_{0};
    bool closed_ = false;
    std::mutex closing_;
    std::vector<std::thread> threads_;
};

}  // namespace flashgate
