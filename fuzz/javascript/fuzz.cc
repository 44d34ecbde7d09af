// libFuzzer as a function of JavaScript: fuzz(arguments, target, counters). `target` gets each input as a
// Buffer that is good for the call only, and `counters` is where the code under test counts its branches; an
// exception that it lets through is a crash.
#include <napi.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

extern "C" {
int LLVMFuzzerRunDriver(int* argc, char*** argv, int (*callback)(const uint8_t* data, size_t size));
void __sanitizer_cov_8bit_counters_init(uint8_t* start, uint8_t* stop);
void __sanitizer_cov_pcs_init(const uintptr_t* begin, const uintptr_t* end);
}

namespace {

Napi::FunctionReference* target = nullptr;

int callTarget(const uint8_t* data, size_t size) {
  const Napi::Env env = target->Env();
  const Napi::HandleScope scope(env);
  try {
    target->Call({Napi::Buffer<uint8_t>::Copy(env, data, size)});
  } catch (const Napi::Error& error) {
    std::fprintf(stderr, "%s\n", error.Get("stack").ToString().Utf8Value().c_str());
    std::abort();  // libFuzzer keeps the input and tells
  }
  return 0;
}

Napi::Value fuzz(const Napi::CallbackInfo& info) {
  std::vector<std::string> words = {"fuzz"};
  const auto list = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    words.push_back(list.Get(i).ToString().Utf8Value());
  }
  target = new Napi::FunctionReference(Napi::Persistent(info[1].As<Napi::Function>()));
  auto counters = info[2].As<Napi::Uint8Array>();
  // libFuzzer wants a place in the code for each counter: any will do.
  static std::vector<uintptr_t> places;
  for (size_t i = 0; i < counters.ByteLength(); i++) {
    places.push_back(reinterpret_cast<uintptr_t>(&callTarget) + i);
    places.push_back(0);
  }
  __sanitizer_cov_8bit_counters_init(counters.Data(), counters.Data() + counters.ByteLength());
  __sanitizer_cov_pcs_init(places.data(), places.data() + places.size());
  std::vector<char*> pointers;
  for (std::string& word : words) {
    pointers.push_back(word.data());
  }
  int count = static_cast<int>(pointers.size());
  pointers.push_back(nullptr);
  char** arguments = pointers.data();
  return Napi::Number::New(info.Env(), LLVMFuzzerRunDriver(&count, &arguments, callTarget));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("fuzz", Napi::Function::New(env, fuzz));
  return exports;
}

}  // namespace

NODE_API_MODULE(fuzz, init)
