// gtp-embed: what an application does with an export, as a program. See README.md beside it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "engine.h"
#include "error.h"
#include "image.h"
#include "latency.h"
#include "manifest.h"
#include "parity.h"
#include "preprocessing.h"
#include "probabilities.h"
#include "reference.h"

namespace {

using namespace gtp;
using Json = nlohmann::json;

constexpr char HELP[] =
    "usage: gtp-embed validate DIR         parity with eager PyTorch, by the parity pack of the export\n"
    "       gtp-embed bench DIR            latency of the dense and the reduced graph, in turn, and their ratio\n"
    "       gtp-embed predict DIR IMAGE    the best classes of a PNG or JPEG file\n"
    "       gtp-embed pixels DIR IMAGE OUT.ppm    the pixels that the model sees\n"
    "options: --engine NAME  --file model.onnx  --threads 1 (0: as many as the engine likes)  --json\n"
    "         --seconds 3 (bench)  --topk 5 and --allow-random (predict)\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 a parity gate failed, 4 something needed is missing\n";

struct Arguments {
  std::vector<std::string> words;
  std::string engine = engine_names().front(), file = "model.onnx";
  int threads = 1, topk = 5;
  double seconds = 3;
  bool json = false, allow_random = false;
};

double number(const std::string& option, const std::string& text, double least, double most) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end || !(value >= least && value <= most)) throw Error(option + " " + text + ": give a number from " + std::to_string(least) + " to " + std::to_string(most), USAGE);
  return value;
}

int whole(const std::string& option, const std::string& text, int least, int most) {
  const double value = number(option, text, least, most);
  if (value != std::floor(value)) throw Error(option + " " + text + ": give a whole number", USAGE);
  return static_cast<int>(value);
}

Arguments parse(int count, char** texts) {
  Arguments arguments;
  for (int index = 1; index < count; ++index) {
    const std::string word = texts[index];
    const auto value = [&]() -> std::string {
      if (index + 1 >= count) throw Error(word + " needs a value", USAGE);
      return texts[++index];
    };
    if (word == "--engine") arguments.engine = value();
    else if (word == "--file") arguments.file = value();
    else if (word == "--threads") arguments.threads = whole(word, value(), 0, 1024);
    else if (word == "--topk") arguments.topk = whole(word, value(), 1, 1 << 20);
    else if (word == "--seconds") arguments.seconds = number(word, value(), 0, 3600);
    else if (word == "--json") arguments.json = true;
    else if (word == "--allow-random") arguments.allow_random = true;
    else if (word.size() > 1 && word[0] == '-') throw Error("unknown option " + word + ": see gtp-embed --help", USAGE);
    else arguments.words.push_back(word);
  }
  return arguments;
}

struct Opened {
  const FileEntry& entry;
  std::unique_ptr<Engine> engine;
};

Opened open(const Manifest& manifest, const std::string& file, const Arguments& arguments) {
  const FileEntry& entry = manifest.entry(file);
  return {entry, open_engine(arguments.engine, manifest.checked(file), entry, arguments.threads)};
}

template <class Value>
Json or_null(const std::optional<Value>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json as_json(const Parity& parity) {
  return {{"ok", parity.ok()},
          {"images", parity.images},
          {"precision", parity.precision},
          {"top1_agreement", or_null(parity.top1_agreement)},
          {"kept_agreement", or_null(parity.kept_agreement)},
          {"kept_overlap", or_null(parity.kept_overlap)},
          {"receiver_agreement", or_null(parity.receiver_agreement)},
          {"max_abs_fraction", or_null(parity.max_abs_fraction)},
          {"max_abs_fraction_all", parity.max_abs_fraction_all},
          {"cosine", parity.cosine},
          {"kl", or_null(parity.kl)},
          {"top1", or_null(parity.top1)},
          {"dense_top1", or_null(parity.dense_top1)},
          {"notes", parity.notes},
          {"problems", parity.problems}};
}

void print_share(const char* what, const std::optional<double>& value) {
  if (value) std::printf(", %s %.1f %%", what, 100 * *value);
}

void print(const Parity& parity, const std::string& engine) {
  std::printf("parity %s on %zu images with %s", parity.ok() ? "ok" : "FAILED", parity.images, engine.c_str());
  print_share("top-1 agrees on", parity.top1_agreement);
  print_share("kept sets on", parity.kept_agreement);
  print_share("receivers on", parity.receiver_agreement);
  std::printf(", error %.1e, cosine %.6f\n", parity.max_abs_fraction_all, parity.cosine);
  if (parity.top1) std::printf("top-1 accuracy %.2f %%\n", 100 * *parity.top1);
  for (const std::string& note : parity.notes) std::printf("  note: %s\n", note.c_str());
  for (const std::string& problem : parity.problems) std::fprintf(stderr, "  failed: %s\n", problem.c_str());
}

ExitCode validate(const Manifest& manifest, const Arguments& arguments) {
  const Opened opened = open(manifest, arguments.file, arguments);
  const Reference reference = read_reference(manifest, opened.entry);
  const Arrays outputs = run_all(*opened.engine, reference.images, opened.entry, manifest.preprocessing);
  const Parity parity = compare(outputs, reference, manifest, opened.entry);
  Json document = as_json(parity);
  document["file"] = arguments.file;
  document["engine"] = opened.engine->name();
  if (arguments.json) std::cout << document.dump(1) << "\n";
  else print(parity, opened.engine->name());
  return parity.ok() ? DONE : GATE_FAILED;
}

// The first images of the parity pack, as many as a batch has.
Array sample(const Reference& reference, const FileEntry& entry, const Preprocessing& settings) {
  const std::size_t count = std::min(entry.batch(), reference.images.rows());
  return input_of(reference.images.bytes.data(), count, entry.inputs.front(), settings);
}

ExitCode bench(const Manifest& manifest, const Arguments& arguments) {
  const std::string dense = manifest.dense_of(arguments.file);
  std::vector<std::string> names = {arguments.file};
  if (!dense.empty()) names.insert(names.begin(), dense);
  std::vector<Opened> files;
  std::vector<Array> inputs;
  for (const std::string& name : names) {
    files.push_back(open(manifest, name, arguments));
    const FileEntry& entry = files.back().entry;
    inputs.push_back(sample(read_reference(manifest, entry), entry, manifest.preprocessing));
  }
  std::vector<std::function<void()>> runs;
  for (std::size_t index = 0; index < files.size(); ++index)
    runs.emplace_back([&, index] { files[index].engine->run(inputs[index]); });
  const std::vector<Latency> results = in_turn(runs, arguments.seconds);
  Json document = {{"engine", files.front().engine->name()}, {"threads", arguments.threads}, {"files", Json::array()}};
  for (std::size_t index = 0; index < files.size(); ++index) {
    const Latency& latency = results[index];
    const double ratio = latency.p50_ms / results.front().p50_ms, macs = files.front().entry.macs;
    document["files"].push_back({{"file", names[index]}, {"runs", latency.runs}, {"p50_ms", latency.p50_ms}, {"p90_ms", latency.p90_ms},
                                 {"p99_ms", latency.p99_ms}, {"ratio", ratio},
                                 {"macs_ratio", macs > 0 ? Json(files[index].entry.macs / macs) : Json(nullptr)}});
    if (!arguments.json)
      std::printf("%-20s p50 %9.3f ms  p90 %9.3f ms  ratio %.3f  (%zu runs, %s)\n", names[index].c_str(), latency.p50_ms, latency.p90_ms,
                  ratio, latency.runs, files[index].engine->name().c_str());
  }
  if (arguments.json) std::cout << document.dump(1) << "\n";
  return DONE;
}

ExitCode predict(const Manifest& manifest, const Arguments& arguments) {
  if (!manifest.classes) throw Error(manifest.name + " outputs features, and a prediction needs classes: export it with --output logits", USAGE);
  if (manifest.weights == "random" && !arguments.allow_random)
    throw Error(manifest.name + " has random weights, so its predictions are meaningless: export it with weights, or give --allow-random", MISSING);
  const Opened opened = open(manifest, arguments.file, arguments);
  const Image image = pixels_of(read_image(arguments.words[2]), manifest.preprocessing);
  const Arrays outputs = opened.engine->run(input_of(image.rgb.data(), 1, opened.entry.inputs.front(), manifest.preprocessing));
  const std::vector<double> logits = row_of(outputs.at("logits"), 0), shares = probabilities(logits, manifest.activation);
  if (!std::all_of(logits.begin(), logits.end(), [](double value) { return std::isfinite(value); }))
    throw Error(arguments.file + " has outputs that are not finite: run gtp-embed validate");
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return shares[a] > shares[b]; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(arguments.topk)));
  Json predictions = Json::array();
  for (const std::size_t index : order) {
    const std::string label = manifest.labels.empty() ? std::to_string(index) : manifest.labels[index];
    predictions.push_back({{"label", label}, {"index", index}, {"probability", shares[index]}});
    if (!arguments.json) std::printf("%6.2f %%  %s\n", 100 * shares[index], label.c_str());
  }
  if (arguments.json) std::cout << Json{{"image", arguments.words[2]}, {"predictions", predictions}}.dump(1, ' ', false, Json::error_handler_t::replace) << "\n";
  return DONE;
}

ExitCode pixels(const Manifest& manifest, const Arguments& arguments) {
  const Image image = pixels_of(read_image(arguments.words[2]), manifest.preprocessing);
  std::ofstream file(arguments.words[3], std::ios::binary);
  file << "P6\n" << image.width << " " << image.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size()));
  if (!file.flush()) throw Error("cannot write " + arguments.words[3] + ": check that this user may write it");
  return DONE;
}

struct Command {
  const char* name;
  std::size_t words;
  ExitCode (*run)(const Manifest&, const Arguments&);
};

constexpr Command COMMANDS[] = {{"validate", 2, validate}, {"bench", 2, bench}, {"predict", 3, predict}, {"pixels", 4, pixels}};

ExitCode run(int count, char** texts) {
  if (count == 2 && (std::string(texts[1]) == "--help" || std::string(texts[1]) == "-h")) {
    std::cout << HELP;
    return DONE;
  }
  const Arguments arguments = parse(count, texts);
  for (const Command& command : COMMANDS)
    if (!arguments.words.empty() && arguments.words[0] == command.name) {
      if (arguments.words.size() != command.words) throw Error(std::string(command.name) + " takes other arguments: see gtp-embed --help", USAGE);
      return command.run(read_manifest(arguments.words[1]), arguments);
    }
  throw Error("give a command: validate, bench, predict or pixels (gtp-embed --help)", USAGE);
}

}  // namespace

int main(int count, char** texts) {
  try {
    return run(count, texts);
  } catch (const Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return error.exit_code;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << ": this is not expected; report it with the command\n";
    return FAILED;
  }
}
