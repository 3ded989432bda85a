#include "thread_pool.h"

#include <chrono>

namespace flashgate {
namespace {

// How long a thread looks before it sleeps: the gaps between the forks of a decode step are shorter than this, and
// waking a thread costs as much as a small matrix (edge/EXPERIMENTS.md). An idle process spins once and then sleeps.
constexpr std::chrono::microseconds kSpinTime{200};
constexpr int kSpinsPerLook = 16;  // at the clock

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Whether is_done() came true within kSpinTime.
template <typename Done>
bool spin_until(Done&& is_done) {
    if (is_done()) return true;
    const auto end = std::chrono::steady_clock::now() + kSpinTime;
    do {
        for (int i = 0; i < kSpinsPerLook; ++i) {
            relax();
            if (is_done()) return true;
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

}  // namespace

void ThreadPool::resize(size_t num_threads) {
    std::lock_guard<std::mutex> turn(caller_);
    if (num_threads == size()) return;
    stop();
    num_threads_ = num_threads;
}

void ThreadPool::start() {
    stopping_ = false;
    shares_ = std::make_unique<Share[]>(size());
    while (workers_.size() + 1 < size()) workers_.emplace_back([this, self = workers_.size() + 1] { work(self); });
}

void ThreadPool::stop() {
    {
        std::lock_guard<std::mutex> lock(sleep_);
        stopping_ = true;
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
    round_ = 0;
}

void ThreadPool::run_tasks(size_t num_tasks, Call call, void* task) {
    if (num_tasks <= 1 || size() == 1) {
        for (size_t i = 0; i < num_tasks; ++i) call(task, i);
        return;
    }
    std::lock_guard<std::mutex> turn(caller_);
    if (workers_.empty()) start();
    call_ = call;
    task_ = task;
    for (size_t i = 0; i < size(); ++i) {
        shares_[i].next.store(num_tasks * i / size(), std::memory_order_relaxed);
        shares_[i].end = num_tasks * (i + 1) / size();
    }
    open_.store(true);
    {
        std::lock_guard<std::mutex> lock(sleep_);
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_tasks(0);
    open_.store(false);
    wait_for_workers();
}

void ThreadPool::take_tasks(size_t self) {
    for (size_t n = 0; n < size(); ++n) {
        Share& share = shares_[(self + n) % size()];
        for (;;) {
            const size_t i = share.next.fetch_add(1, std::memory_order_relaxed);
            if (i >= share.end) break;
            call_(task_, i);
        }
    }
}

void ThreadPool::wait_for_workers() {
    const auto all_left = [this] { return inside_.load() == 0; };
    if (spin_until(all_left)) return;
    std::unique_lock<std::mutex> lock(sleep_);
    finished_.wait(lock, all_left);
}

uint64_t ThreadPool::wait_for_round(uint64_t seen) {
    const auto is_new = [&] { return round_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(is_new)) {
        std::unique_lock<std::mutex> lock(sleep_);
        wake_.wait(lock, is_new);
    }
    return round_.load(std::memory_order_acquire);
}

void ThreadPool::work(size_t self) {
    uint64_t seen = 0;
    for (;;) {
        seen = wait_for_round(seen);
        if (stopping_) return;
        inside_.fetch_add(1);
        if (open_.load()) take_tasks(self);
        if (inside_.fetch_sub(1) == 1) {
            std::lock_guard<std::mutex> lock(sleep_);
            finished_.notify_one();
        }
    }
}

}  // namespace flashgate
