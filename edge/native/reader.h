// Reads aligned blocks of files on threads of its own, past the page cache where the file system allows it.
//
// A read is split into parts, so that several threads fetch one block and the disk sees many requests at once. Parts of
// reads that somebody waits for go first; those of reads that are only likely to be needed fill what the disk has left.
// A read that fails, ends early or has a wrong checksum is an error of its ticket; nothing is retried but EINTR.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace flashgate {

// A file could not be opened or read as asked: the message names it, where, and why.
struct ReadError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The time during which at least one thing was going on.
class BusyClock {
public:
    void begin() {
        if (running_++ == 0) since_ = Clock::now();
    }
    void end() {
        if (--running_ == 0) total_ += Clock::now() - since_;
    }
    double seconds() const {
        const auto now = running_ > 0 ? Clock::now() - since_ : Clock::duration(0);
        return std::chrono::duration<double>(total_ + now).count();
    }

private:
    using Clock = std::chrono::steady_clock;
    size_t running_ = 0;
    Clock::time_point since_;
    Clock::duration total_{0};
};

class Reader {
public:
    static constexpr size_t kAlignment = 4096;
    // One request to the disk: large enough for its full rate, small enough that a block keeps several threads busy.
    static constexpr size_t kPartBytes = 1 << 20;

    enum class Urgency { demand, prefetch };

    struct Counters {
        uint64_t demand_bytes = 0, prefetch_bytes = 0;
        uint64_t abandoned_bytes = 0;  // of these, those of reads that were abandoned
        double busy_seconds = 0;    // with at least one read in flight
        double demand_seconds = 0;  // with at least one in flight that is no prefetch
        double wait_seconds = 0;    // in which a caller of wait() or wait_any() was held up
    };

    // Throws ReadError if a path cannot be opened as a regular file.
    Reader(std::vector<std::string> paths, size_t num_threads, bool direct);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // Asks the disk for at most `queue_depth` parts at once (all threads if there are fewer), each of `part_bytes`, a
    // multiple of kAlignment. Reads under way keep their parts. A depth of 0 holds all parts back until the next call.
    // A part of a prefetch begins only below `prefetch_depth`: what is under way then is what a demand has to wait for.
    void tune(size_t queue_depth, size_t part_bytes, size_t prefetch_depth);

    // Starts filling out[0 ... size); offset, size and address are multiples of kAlignment. `out` must stay valid until
    // wait() has returned, cancel() has returned true or the reader is closed. Throws std::invalid_argument after
    // close().
    uint64_t read(size_t file, uint64_t offset, uint8_t* out, size_t size, std::optional<uint32_t> crc,
                  Urgency urgency = Urgency::demand);
    // Blocks until the read has ended, and forgets the ticket. Throws ReadError if it failed, std::invalid_argument
    // for a ticket that is not open.
    void wait(uint64_t ticket);
    // Blocks until one of the reads has ended and returns all that have; none is forgotten. An empty list for none.
    std::vector<uint64_t> wait_any(const std::vector<uint64_t>& tickets);
    bool is_done(uint64_t ticket);
    // Makes a prefetch a read that is waited for; nothing happens to one that is so already.
    void promote(uint64_t ticket);
    // Forgets a read of which nothing has begun. False if it has: it then goes on and must be waited for.
    bool cancel(uint64_t ticket);
    // Drops what has not begun of a read, which must be waited for all the same: `out` will hold nothing of use, and
    // that is no error. False, and nothing is dropped, if all of it has begun.
    bool abandon(uint64_t ticket);

    // Drops reads that have not begun (they fail), lets those that have finish, and ends the threads.
    void close();

    bool direct() const;
    size_t num_files() const { return files_.size(); }
    Counters counters();

private:
    struct File {
        std::string path;
        int fd = -1;
        std::atomic<bool> direct{false};
    };
    struct Request {
        size_t file;
        uint64_t offset;
        uint8_t* out;
        size_t size, part_bytes;
        std::optional<uint32_t> crc;
        Urgency urgency;
        size_t parts_left;  // not yet read
        size_t bytes_read = 0;
        bool has_begun = false;
        bool is_abandoned = false;
        bool is_done = false;
        std::vector<uint32_t> checksums;  // of each part, empty if there is nothing to compare with
        std::string error;                // the first one
    };
    struct Part {
        Request* request;
        size_t begin, end;
    };
    using Queue = std::deque<Part>;

    void open(File& file, std::string path, bool direct);
    void work();
    bool can_begin() const;
    Part take_part();
    static void stop_direct(File& file);
    std::string read_part(const Part& part);
    std::string check(const Request& request) const;
    void finish_part(Request& request, std::string error);
    void end(Request& request);
    Request& find(uint64_t ticket);
    Queue& queue(Urgency urgency) { return urgency == Urgency::demand ? demand_ : prefetch_; }
    template <typename Condition>
    void wait_until(std::unique_lock<std::mutex>& lock, Condition&& holds);

    std::vector<File> files_;
    std::mutex mutex_;
    std::condition_variable queued_, ended_;
    Queue demand_, prefetch_;
    std::unordered_map<uint64_t, Request> requests_;  // by ticket; parts point at its elements, which never move
    uint64_t next_ticket_ = 1;
    size_t queue_depth_, prefetch_depth_;
    size_t part_bytes_ = kPartBytes;
    size_t parts_begun_ = 0;  // and not yet read
    BusyClock busy_, demand_busy_;
    Counters counters_;
    bool closed_ = false;
    std::mutex closing_;
    std::vector<std::thread> threads_;
};

}  // namespace flashgate
