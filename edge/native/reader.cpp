#include "reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "crc32c.h"

namespace flashgate {
namespace {

// One request to the disk: large enough for its full rate, small enough that a block keeps several threads busy.
constexpr size_t kPartBytes = 1 << 20;

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

Reader::Reader(std::vector<std::string> paths, size_t num_threads, bool direct) : files_(paths.size()) {
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

uint64_t Reader::read(size_t file, uint64_t offset, uint8_t* out, size_t size, std::optional<uint32_t> crc) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) throw std::invalid_argument("the reader is closed");
    const uint64_t ticket = next_ticket_++;
    Request& request = requests_[ticket];
    request = {file, offset, out, size, crc, (size + kPartBytes - 1) / kPartBytes, {}, false};
    for (size_t begin = 0; begin < size; begin += kPartBytes)
        queue_.push_back({&request, begin, std::min(size, begin + kPartBytes)});
    if (in_flight_++ == 0) busy_since_ = Clock::now();
    queued_.notify_all();
    return ticket;
}

Reader::Request& Reader::find(uint64_t ticket) {
    const auto found = requests_.find(ticket);
    if (found == requests_.end()) throw std::invalid_argument("ticket " + std::to_string(ticket) + " is not open");
    return found->second;
}

void Reader::wait(uint64_t ticket) {
    std::unique_lock<std::mutex> lock(mutex_);
    Request& request = find(ticket);
    ended_.wait(lock, [&] { return request.is_done; });
    const std::string error = std::move(request.error);
    requests_.erase(ticket);
    if (!error.empty()) throw ReadError(error);
}

bool Reader::is_done(uint64_t ticket) {
    std::lock_guard<std::mutex> lock(mutex_);
    return find(ticket).is_done;
}

double Reader::busy_seconds() {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto running = in_flight_ > 0 ? Clock::now() - busy_since_ : Clock::duration(0);
    return std::chrono::duration<double>(busy_ + running).count();
}

void Reader::close() {
    std::lock_guard<std::mutex> turn(closing_);
    {
        std::unique_lock<std::mutex> lock(mutex_);
        closed_ = true;
        while (!queue_.empty()) {
            Request& request = *queue_.front().request;
            queue_.pop_front();
            finish_part(lock, request, "read of " + files_[request.file].path + " dropped: the reader was closed");
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

void Reader::work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        queued_.wait(lock, [this] { return closed_ || !queue_.empty(); });
        if (queue_.empty()) return;
        const Part part = queue_.front();
        queue_.pop_front();
        lock.unlock();
        std::string error = read_part(part);
        lock.lock();
        finish_part(lock, *part.request, std::move(error));
    }
}

// Called with the lock held, which is let go while the checksum is computed.
void Reader::finish_part(std::unique_lock<std::mutex>& lock, Request& request, std::string error) {
    if (request.error.empty()) request.error = std::move(error);
    if (--request.parts_left > 0) return;
    if (request.error.empty() && request.crc) {
        lock.unlock();
        std::string mismatch = check(request);
        lock.lock();
        request.error = std::move(mismatch);
    }
    request.is_done = true;
    if (--in_flight_ == 0) busy_ += Clock::now() - busy_since_;
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
            bytes_read_ += static_cast<uint64_t>(n);
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
    const uint32_t found = crc32c(request.out, request.size);
    if (found == *request.crc) return {};
    char text[80];
    std::snprintf(text, sizeof(text), "checksum %08x, expected %08x", found, *request.crc);
    return "altered data in " + files_[request.file].path + " at offset " + std::to_string(request.offset) + ", " +
           std::to_string(request.size) + " bytes: " + text;
}

}  // namespace flashgate
