#include "addon/value.h"

#include <cmath>

namespace tsvmm::addon {
namespace {

constexpr double kMaxSafe = 9007199254740991;
constexpr unsigned kMaxDepth = 64;

Value fromJs(const Napi::Value& value, unsigned depth);

Value number(const Napi::Value& value) {
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0 && number <= kMaxSafe) || number != std::floor(number)) {
    throw Napi::TypeError::New(value.Env(), "expected a whole number of at least 0");
  }
  return static_cast<uint64_t>(number);
}

Value bigint(const Napi::Value& value) {
  bool lossless = false;
  const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) {
    throw Napi::TypeError::New(value.Env(), "expected a whole number of 64 bits");
  }
  return number;
}

Value list(const Napi::Array& array, unsigned depth) {
  Value::List list;
  for (uint32_t i = 0; i < array.Length(); i++) {
    list.push_back(fromJs(array.Get(i), depth + 1));
  }
  return list;
}

Value record(const Napi::Object& object, unsigned depth) {
  Value::Record record;
  const Napi::Array names = object.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    const std::string name = names.Get(i).ToString().Utf8Value();
    record.emplace(name, fromJs(object.Get(name), depth + 1));
  }
  return record;
}

Value fromJs(const Napi::Value& value, unsigned depth) {
  if (depth > kMaxDepth) {
    throw Napi::TypeError::New(value.Env(), "nested too deeply");
  }
  if (value.IsNull() || value.IsUndefined()) {
    return {};
  }
  if (value.IsBoolean()) {
    return value.As<Napi::Boolean>().Value();
  }
  if (value.IsNumber()) {
    return number(value);
  }
  if (value.IsBigInt()) {
    return bigint(value);
  }
  if (value.IsString()) {
    return value.As<Napi::String>().Utf8Value();
  }
  if (value.IsTypedArray()) {
    const auto bytes = value.As<Napi::Uint8Array>();
    return Value::Bytes(bytes.Data(), bytes.Data() + bytes.ByteLength());
  }
  if (value.IsArray()) {
    return list(value.As<Napi::Array>(), depth);
  }
  if (value.IsObject() && !value.IsFunction()) {
    return record(value.As<Napi::Object>(), depth);
  }
  throw Napi::TypeError::New(value.Env(), "a state holds no functions and symbols");
}

}  // namespace

Napi::Value toJs(Napi::Env env, const Value& value) {
  if (const auto* boolean = value.asBool()) {
    return Napi::Boolean::New(env, *boolean);
  }
  if (const auto* integer = value.asInteger()) {
    if (static_cast<double>(*integer) <= kMaxSafe) {
      return Napi::Number::New(env, static_cast<double>(*integer));
    }
    return Napi::BigInt::New(env, *integer);
  }
  if (const auto* string = value.asString()) {
    return Napi::String::New(env, *string);
  }
  if (const auto* bytes = value.asBytes()) {
    return Napi::Buffer<uint8_t>::Copy(env, bytes->data(), bytes->size());
  }
  if (const auto* list = value.asList()) {
    auto array = Napi::Array::New(env, list->size());
    for (uint32_t i = 0; i < list->size(); i++) {
      array.Set(i, toJs(env, (*list)[i]));
    }
    return array;
  }
  if (const auto* record = value.asRecord()) {
    auto object = Napi::Object::New(env);
    for (const auto& [name, field] : *record) {
      object.Set(name, toJs(env, field));
    }
    return object;
  }
  return env.Null();
}

Value fromJs(const Napi::Value& value) { return fromJs(value, 0); }

}  // namespace tsvmm::addon
