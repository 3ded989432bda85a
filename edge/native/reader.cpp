#include "reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "crc32c.h"

namespace flashgate {
namespace {

std::string errno_text(int error) {
    return std::string(std::strerror(error)) + " (errno " + std::to_string(error) + ")";
}

int open_for_reading(const char* path, bool direct) {
#if defined(O_DIRECT)
    const int flags = O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0);
#else
    const int flags = O_RDONLY | O_CLOEXEC;
#endif
    for (;;) {
        const int fd = ::open(path, flags);
        if (fd >= 0 || errno != EINTR) return fd;
    }
}

uint64_t size_of(int fd) {
    struct stat info;
    return ::fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

// Through the page cache, the kernel would fetch what follows a block, and keep it after we drop the block.
void forbid_readahead([[maybe_unused]] int fd) {
#if defined(POSIX_FADV_RANDOM)
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
#endif
}

}  // namespace

Reader::Reader(std::vector<std::string> paths, size_t num_threads, bool direct)
    : files_(paths.size()), queue_depth_(num_threads), prefetch_depth_(num_threads) {
    try {
        for (size_t i = 0; i < paths.size(); ++i) open(files_[i], std::move(paths[i]), direct);
        for (size_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {
        close();
        throw;
    }
}

Reader::~Reader() { close(); }

void Reader::open(File& file, std::string path, bool direct) {
    file.path = std::move(path);
    file.fd = open_for_reading(file.path.c_str(), direct);
    file.direct = direct && file.fd >= 0;
    if (file.fd < 0 && direct && errno == EINVAL) file.fd = open_for_reading(file.path.c_str(), false);
    if (file.fd < 0) throw ReadError("cannot open " + file.path + ": " + errno_text(errno));
    struct stat info;
    if (::fstat(file.fd, &info) != 0) throw ReadError("cannot inspect " + file.path + ": " + errno_text(errno));
    if (!S_ISREG(info.st_mode)) throw ReadError("cannot read " + file.path + ": not a regular file");
    if (!file.direct) forbid_readahead(file.fd);
}

bool Reader::direct() const {
    return std::all_of(files_.begin(), files_.end(), [](const File& file) { return file.direct.load(); });
}

void Reader::tune(size_t queue_depth, size_t part_bytes, size_t prefetch_depth) {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_depth_ = queue_depth;
    prefetch_depth_ = std::min(queue_depth, prefetch_depth);
    part_bytes_ = part_bytes;
    queued_.notify_all();
}

uint64_t Reader::read(size_t file, uint64_t offset, uint8_t* out, size_t size, std::optional<uint32_t> crc,
                      Urgency urgency) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) throw std::invalid_argument("the reader is closed");
    const uint64_t ticket = next_ticket_++;
    const size_t num_parts = (size + part_bytes_ - 1) / part_bytes_;
    Request& request = requests_[ticket];
    request = {.file = file, .offset = offset, .out = out, .size = size, .part_bytes = part_bytes_, .crc = crc,
               .urgency = urgency, .parts_left = num_parts, .checksums = std::vector<uint32_t>(crc ? num_parts : 0),
               .error = {}};
    busy_.begin();
    if (urgency == Urgency::demand) demand_busy_.begin();
    for (size_t begin = 0; begin < size; begin += part_bytes_) {
        queue(urgency).push_back({&request, begin, std::min(size, begin + part_bytes_)});
        queued_.notify_one();
    }
    return ticket;
}

Reader::Request& Reader::find(uint64_t ticket) {
    const auto found = requests_.find(ticket);
    if (found == requests_.end()) throw std::invalid_argument("ticket " + std::to_string(ticket) + " is not open");
    return found->second;
}

// Looks the tickets up anew each time: another thread may have waited for one and so have ended it.
template <typename Condition>
void Reader::wait_until(std::unique_lock<std::mutex>& lock, Condition&& holds) {
    if (holds()) return;
    const auto began = std::chrono::steady_clock::now();
    ended_.wait(lock, holds);
    counters_.wait_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

void Reader::wait(uint64_t ticket) {
    std::unique_lock<std::mutex> lock(mutex_);
    wait_until(lock, [&] { return find(ticket).is_done; });
    const std::string error = std::move(find(ticket).error);
    requests_.erase(ticket);
    ended_.notify_all();
    if (!error.empty()) throw ReadError(error);
}

std::vector<uint64_t> Reader::wait_any(const std::vector<uint64_t>& tickets) {
    std::vector<uint64_t> ended;
    std::unique_lock<std::mutex> lock(mutex_);
    wait_until(lock, [&] {
        std::copy_if(tickets.begin(), tickets.end(), std::back_inserter(ended),
                     [&](uint64_t ticket) { return find(ticket).is_done; });
        return !ended.empty() || tickets.empty();
    });
    return ended;
}

bool Reader::is_done(uint64_t ticket) {
    std::lock_guard<std::mutex> lock(mutex_);
    return find(ticket).is_done;
}

void Reader::promote(uint64_t ticket) {
    std::lock_guard<std::mutex> lock(mutex_);
    Request& request = find(ticket);
    if (request.is_done || request.urgency == Urgency::demand) return;
    request.urgency = Urgency::demand;
    demand_busy_.begin();
    const auto is_other = [&](const Part& part) { return part.request != &request; };
    const auto first = std::stable_partition(prefetch_.begin(), prefetch_.end(), is_other);
    demand_.insert(demand_.end(), first, prefetch_.end());
    prefetch_.erase(first, prefetch_.end());
}

bool Reader::cancel(uint64_t ticket) {
    std::lock_guard<std::mutex> lock(mutex_);
    Request& request = find(ticket);
    if (request.has_begun || request.is_done) return false;
    std::erase_if(queue(request.urgency), [&](const Part& part) { return part.request == &request; });
    busy_.end();
    if (request.urgency == Urgency::demand) demand_busy_.end();
    requests_.erase(ticket);
    return true;
}

bool Reader::abandon(uint64_t ticket) {
    std::lock_guard<std::mutex> lock(mutex_);
    Request& request = find(ticket);
    const size_t dropped =
        std::erase_if(queue(request.urgency), [&](const Part& part) { return part.request == &request; });
    if (dropped == 0) return false;
    request.is_abandoned = true;
    request.parts_left -= dropped;
    if (request.parts_left == 0) end(request);
    return true;
}

Reader::Counters Reader::counters() {
    std::lock_guard<std::mutex> lock(mutex_);
    counters_.busy_seconds = busy_.seconds();
    counters_.demand_seconds = demand_busy_.seconds();
    return counters_;
}

void Reader::close() {
    std::lock_guard<std::mutex> turn(closing_);
    {
        std::lock_guard<std::mutex> lock(mutex_);
        closed_ = true;
        for (Queue* parts : {&demand_, &prefetch_})
            while (!parts->empty()) {
                Request& request = *parts->front().request;
                parts->pop_front();
                finish_part(request, "read of " + files_[request.file].path + " dropped: the reader was closed");
            }
    }
    queued_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
    for (auto& file : files_)
        if (file.fd >= 0) {
            ::close(file.fd);
            file.fd = -1;
        }
}

bool Reader::can_begin() const {
    return (!demand_.empty() && parts_begun_ < queue_depth_) || (!prefetch_.empty() && parts_begun_ < prefetch_depth_);
}

Reader::Part Reader::take_part() {
    Queue& parts = demand_.empty() ? prefetch_ : demand_;
    const Part part = parts.front();
    parts.pop_front();
    part.request->has_begun = true;
    return part;
}

void Reader::work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        queued_.wait(lock, [this] { return closed_ || can_begin(); });
        if (!can_begin()) return;
        const Part part = take_part();
        Request& request = *part.request;
        ++parts_begun_;
        lock.unlock();
        std::string error = read_part(part);
        lock.lock();
        --parts_begun_;
        const size_t bytes = part.end - part.begin;
        if (error.empty()) {
            (request.urgency == Urgency::demand ? counters_.demand_bytes : counters_.prefetch_bytes) += bytes;
            request.bytes_read += bytes;
        }
        if (error.empty() && request.crc && !request.is_abandoned) {
            queued_.notify_one();  // another thread keeps the disk busy while this one computes
            lock.unlock();
            const uint32_t checksum = crc32c(request.out + part.begin, bytes);
            lock.lock();
            request.checksums[part.begin / request.part_bytes] = checksum;
        }
        finish_part(request, std::move(error));
    }
}

// Called with the lock held.
void Reader::finish_part(Request& request, std::string error) {
    if (request.error.empty()) request.error = std::move(error);
    if (--request.parts_left == 0) end(request);
}

// Called with the lock held.
void Reader::end(Request& request) {
    if (request.is_abandoned)
        counters_.abandoned_bytes += request.bytes_read;
    else if (request.error.empty() && request.crc)
        request.error = check(request);
    request.is_done = true;
    busy_.end();
    if (request.urgency == Urgency::demand) demand_busy_.end();
    ended_.notify_all();
}

// Some file systems accept the flag when opening and refuse it when reading; the flag is then dropped for all readers.
void Reader::stop_direct(File& file) {
#if defined(O_DIRECT)
    const int flags = ::fcntl(file.fd, F_GETFL);
    ::fcntl(file.fd, F_SETFL, flags & ~O_DIRECT);
#endif
    forbid_readahead(file.fd);
    file.direct = false;
}

std::string Reader::read_part(const Part& part) {
    const Request& request = *part.request;
    File& file = files_[request.file];
    const auto ends_early = [&] {
        return "short read of " + file.path + " at offset " + std::to_string(request.offset) + ": the file has " +
               std::to_string(size_of(file.fd)) + " bytes, the block ends at " +
               std::to_string(request.offset + request.size);
    };
    for (size_t at = part.begin; at < part.end;) {
        const ssize_t n = ::pread(file.fd, request.out + at, part.end - at, static_cast<off_t>(request.offset + at));
        if (n > 0) {
            at += static_cast<size_t>(n);
        } else if (n == 0) {
            return ends_early();
        } else if (errno == EINVAL && file.direct) {
            // Also what a direct read says that would go on from an end of file within a sector.
            if (size_of(file.fd) <= request.offset + at) return ends_early();
            stop_direct(file);
        } else if (errno != EINTR) {
            return "cannot read " + file.path + " at offset " + std::to_string(request.offset + at) + ": " +
                   errno_text(errno);
        }
    }
#if defined(POSIX_FADV_DONTNEED)
    // Without O_DIRECT the kernel keeps a copy, which would count against the memory budget.
    if (!file.direct)
        ::posix_fadvise(file.fd, static_cast<off_t>(request.offset + part.begin),
                        static_cast<off_t>(part.end - part.begin), POSIX_FADV_DONTNEED);
#endif
    return {};
}

std::string Reader::check(const Request& request) const {
    uint32_t found = 0;
    for (size_t i = 0; i < request.checksums.size(); ++i) {
        const size_t bytes = std::min(request.part_bytes, request.size - i * request.part_bytes);
        found = crc32c_append(found, request.checksums[i], bytes);
    }
    if (found == *request.crc) return {};
    char text[80];
    std::snprintf(text, sizeof(text), "checksum %08x, expected %08x", found, *request.crc);
    return "altered data in " + files_[request.file].path + " at offset " + std::to_string(request.offset) + ", " +
           std::to_string(request.size) + " bytes: " + text;
}

}  // namespace flashgate
