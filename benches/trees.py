"""Tree ensembles beside xgboost, lightgbm, lleaves, treelite, tl2cgen and onnxruntime.

Run: python benches/trees.py prepare FOLDER      trains with fixed seeds, converts, compiles
     python benches/trees.py compare FOLDER trees-binary [model ...] [--batches 1 32] [--threads 1 2]
Prints, for each model, batch and number of threads, the best time of a call of each peer and of
ours, over interleaved repetitions, and the ratio of the fastest peer to ours. Data are made, float32 for xgboost and forests, float64 for
lightgbm. `trees-binary` is `target/release/trees` of `cargo build --release -p tokenmill-benches --bin trees`.
Peers are called as their users call them, with arrays or matrices that exist before the clock starts; ours loads the
libraries' own files and predicts as the server does.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FEATURES, TRAIN_ROWS, ROWS = 28, 20_000, 100_000
BOOSTED = {"xgb-100": 100, "xgb-1000": 1000, "lgb-100": 100, "lgb-1000": 1000}
FILES = {"xgb": "json", "lgb": "txt", "rf": "joblib"}
# The C of more trees takes a compiler many minutes: there, lleaves and the interpreters are the peers.
COMPILED = ("xgb-100", "lgb-100", "xgb-1000")


def data(seed, rows):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + np.abs(x[:, 3:8]).sum(1) + 0.5 * rng.normal(size=rows)
    return x, y.astype(np.float32)


def prepare(folder):
    import joblib
    import lightgbm
    import sklearn.ensemble
    import xgboost

    folder.mkdir(parents=True, exist_ok=True)
    x, y = data(1, TRAIN_ROWS)
    for name, rounds in BOOSTED.items():
        if name.startswith("xgb"):
            params = {"max_depth": 6, "eta": 0.1, "tree_method": "hist", "seed": 1, "base_score": 0.0}
            booster = xgboost.train(params, xgboost.DMatrix(x, y), rounds)
            booster.save_model(folder / f"{name}.json")
        else:
            params = {"num_leaves": 127, "learning_rate": 0.1, "verbose": -1, "seed": 1, "num_threads": 2}
            booster = lightgbm.train(params, lightgbm.Dataset(x.astype(np.float64), y), rounds)
            booster.save_model(folder / f"{name}.txt")
    forest = sklearn.ensemble.RandomForestRegressor(200, random_state=1, n_jobs=2).fit(x, y)
    joblib.dump(forest, folder / "rf-200.joblib")
    print("trained", flush=True)
    convert(folder)


def convert(folder):
    import joblib
    import lightgbm
    import onnxmltools
    import skl2onnx
    import tl2cgen
    import treelite
    import xgboost
    from skl2onnx.common.data_types import FloatTensorType

    types = [("x", FloatTensorType([None, FEATURES]))]
    for name in [*BOOSTED, "rf-200"]:
        if name.startswith("xgb"):
            booster = xgboost.Booster(model_file=folder / f"{name}.json")
            onnx = onnxmltools.convert_xgboost(booster, initial_types=types)
            model = treelite.frontend.from_xgboost(booster)
        elif name.startswith("lgb"):
            booster = lightgbm.Booster(model_file=folder / f"{name}.txt")
            onnx = onnxmltools.convert_lightgbm(booster, initial_types=types)
            model = treelite.frontend.from_lightgbm(booster)
        else:
            forest = joblib.load(folder / "rf-200.joblib")
            onnx = skl2onnx.to_onnx(forest, initial_types=types)
            model = treelite.sklearn.import_model(forest)
        (folder / f"{name}.onnx").write_bytes(onnx.SerializeToString())
        model.serialize(folder / f"{name}.treelite")
        print("converted", name, flush=True)
    for name in COMPILED:
        model = treelite.Model.deserialize(folder / f"{name}.treelite")
        tl2cgen.export_lib(model, "gcc", folder / f"{name}.so", params={"parallel_comp": 32}, nthread=1)
        if name.startswith("lgb"):
            import lleaves

            lleaves.Model(model_file=folder / f"{name}.txt").compile(cache=folder / f"{name}.lleaves")
        print("compiled", name, flush=True)


def peers(folder, name, x, sizes, threads_counts):
    """(peer, threads) -> a function from a batch to nothing; matrices are made here, before the clock."""
    import joblib
    import lightgbm
    import onnxruntime
    import tl2cgen
    import treelite
    import xgboost

    double = x.astype(np.float64)
    batches = {rows: (x[:rows], double[:rows]) for rows in sizes}
    calls = {}
    for threads in threads_counts:
        if name.startswith("xgb"):
            booster = xgboost.Booster({"nthread": threads}, model_file=folder / f"{name}.json")
            # Not `predict` of a DMatrix: a booster remembers what it answered for one.
            calls["xgboost", threads] = lambda n, b=booster: b.inplace_predict(batches[n][0])
        elif name.startswith("lgb"):
            booster = lightgbm.Booster(model_file=folder / f"{name}.txt")
            calls["lightgbm", threads] = (
                lambda n, b=booster, t=threads: b.predict(batches[n][1], num_threads=t))
            if (folder / f"{name}.lleaves").exists():
                import lleaves

                compiled = lleaves.Model(model_file=folder / f"{name}.txt")
                compiled.compile(cache=folder / f"{name}.lleaves")
                calls["lleaves", threads] = lambda n, m=compiled, t=threads: m.predict(batches[n][1], n_jobs=t)
        else:
            forest = joblib.load(folder / "rf-200.joblib").set_params(n_jobs=threads)
            calls["sklearn", threads] = lambda n, f=forest: f.predict(batches[n][0])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        calls["onnxruntime", threads] = lambda n, s=session: s.run(None, {"x": batches[n][0]})
        model = treelite.Model.deserialize(folder / f"{name}.treelite")
        calls["treelite", threads] = (
            lambda n, m=model, t=threads: treelite.gtil.predict(m, batches[n][0], nthread=t))
        if (folder / f"{name}.so").exists():
            predictor = tl2cgen.Predictor(folder / f"{name}.so", nthread=threads)
            kind = "float64" if name.startswith("lgb") else "float32"
            matrices = {rows: tl2cgen.DMatrix(batch[kind == "float64"], dtype=kind) for rows, batch in batches.items()}
            calls["tl2cgen", threads] = lambda n, p=predictor, m=matrices: p.predict(m[n])
    return calls


def clock(call, batch, seconds):
    """Microseconds of the fastest of the calls that fill `seconds`."""
    begin, best = time.perf_counter(), float("inf")
    while best == float("inf") or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call(batch)
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def compare(folder, binary, names, batches, threads_counts):
    x, _ = data(2, ROWS)
    x.tofile(folder / "rows.f32")
    print("model | batch | threads | ours, us | peers, us | fastest peer / ours")
    for name in names:
        calls = peers(folder, name, x, batches, threads_counts)
        file = folder / f"{name}.{FILES[name.split('-')[0]]}"
        ours = subprocess.Popen([binary, file, folder / "rows.f32"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for batch in batches:
            # All rows through a large model take some peers ten seconds a call.
            slow = 2 if name.endswith("-100") else 1
            seconds, repetitions = (0.05, 9) if batch < ROWS else (0.0, slow)
            for threads in threads_counts:
                times = {}
                for _ in range(repetitions):
                    print(batch, threads, seconds, file=ours.stdin, flush=True)
                    times.setdefault("ours", []).append(float(ours.stdout.readline()))
                    for (peer, count), call in calls.items():
                        if count == threads:
                            times.setdefault(peer, []).append(clock(call, batch, seconds))
                best = {peer: min(values) for peer, values in times.items()}
                mine = best.pop("ours")
                listing = ", ".join(f"{peer} {value:.1f}" for peer, value in sorted(best.items(), key=lambda p: p[1]))
                print(f"{name} | {batch} | {threads} | {mine:.1f} | {listing} | {min(best.values()) / mine:.1f}",
                      flush=True)
        ours.stdin.close()
        ours.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("command", choices=("prepare", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("models", nargs="*", default=[*BOOSTED, "rf-200"])
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 32, 1024, ROWS))
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.folder)
    else:
        compare(arguments.folder, arguments.binary, arguments.models, arguments.batches, arguments.threads)
