"""The functions of BaS-Net, UM, LACP, CoLA, ASL, STPN and CMCS, written down literally from their description.

Lists, loops over proposals and a NumPy mean for each, as the published code has them: benchmarks use these as the
contender.  Nothing here is compiled, and nothing guards against empty input unless the description says so.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import interp1d
from scipy.ndimage import maximum_filter1d
from scipy.signal import medfilt


def upgrade_resolution(arr, scale):
    """SciPy's linear interpolation at multiples of 1 / scale, going on along the last slope."""
    count = arr.shape[0]
    line = interp1d(np.arange(count), arr, kind="linear", axis=0, fill_value="extrapolate")
    return line(np.arange(0, count, 1 / scale))


def consecutive(indices):
    """Arrays of indices that follow each other."""
    return [group for group in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1) if len(group)]


def contrast(column, group, margin):
    """OIC-A: mean inside minus the mean of both margins, whose reach int() cuts."""
    first, last, size = group[0], group[-1], len(group)
    around = [*range(max(0, int(first - margin * size)), first)]
    around += range(last + 1, min(len(column) - 1, int(last + margin * size)) + 1)
    return np.mean(column[group]) - (np.mean(column[around]) if around else 0)


def get_proposal_oic(
    found, maps, scores, classes, scale, v_len, fps, num_segments, margin=0.25, gamma=0.2, *, shortest=1, always=False
):
    """`found` are results of numpy.where.  Without `always`, a class without an index other than 0 has no list."""
    step = 16 * v_len / (scale * num_segments * fps)
    out = []
    for i, where in enumerate(found):
        rows = []
        if np.any(where[0]):
            for group in consecutive(where[0]):
                if len(group) >= shortest:
                    score = contrast(maps[:, i, 0], group, margin) + gamma * scores[classes[i]]
                    rows.append([classes[i], score, group[0] * step, (group[-1] + 1) * step])
        if np.any(where[0]) or always:
            out.append(rows)
    return out


def nms(proposals, thresh, soft_nms=False, nms_alpha=0.0):
    """Rows [class, score, start, end]; with `soft_nms` those that go are appended, decayed once."""
    rows = np.array(proposals)
    left = np.argsort(rows[:, 1], kind="stable")[::-1]
    kept, decayed = [], []
    while len(left):
        best, others = rows[left[0]], rows[left[1:]]
        shared = np.maximum(0.0, np.minimum(best[3], others[:, 3]) - np.maximum(best[2], others[:, 2]) + 1)
        iou = shared / ((best[3] - best[2] + 1) + (others[:, 3] - others[:, 2] + 1) - shared)
        kept.append(best.tolist())
        for row, overlap in zip(others, iou) if soft_nms else ():
            if overlap >= thresh:
                weight = np.exp(-(overlap**2) / nms_alpha) if nms_alpha else 0.0
                decayed.append([row[0], row[1] * weight, row[2], row[3]])
        left = left[1:][iou < thresh]
    return kept + decayed


def minmax_norm(values, low=None, high=None, *, clip=True):
    """(1, T, C) or (1, T) array; the range over time is cut at 0 from below."""
    out = np.empty_like(values)
    for place in np.ndindex(values.shape[2:]):
        series = values[(0, slice(None), *place)]
        least, most = (max(series.min(), 0), max(series.max(), 0)) if low is None else (low, high)
        scaled = (series - least) / (most - least if most - least > 0 else 1)
        out[(0, slice(None), *place)] = np.clip(scaled, 0, 1) if clip else scaled
    return out


def _bank(
    own, scored, thresholds, scores, classes, v_len, config, *, zeroed, into, margin=0.25, shortest=1, always=False
):
    """Proposals of every threshold, added class by class."""
    for threshold in thresholds:
        thresholded = own.copy()
        thresholded[thresholded < threshold] = 0
        found = [np.where(thresholded[:, i, 0] > 0) for i in range(len(classes))]
        lists = get_proposal_oic(
            found,
            thresholded if zeroed else scored,
            scores,
            classes,
            config.scale,
            v_len,
            config.fps,
            len(own) // config.scale,
            margin,
            shortest=shortest,
            always=always,
        )
        for rows in lists:
            for row in rows:
                into.setdefault(row[0], []).append(row)


def _columns(values, classes, scale):
    """(1, T, C) map: the searched classes, upsampled."""
    return upgrade_resolution(values[0][:, classes].reshape(values.shape[1], -1, 1), scale)


def _best_of(scores, threshold):
    found = np.where(scores >= threshold)[0]
    return found if len(found) else np.array([np.argmax(scores)])


def basnet(scores, cas, v_len, config):
    """Lists of rows of the classes found; scores (1, C + 1)."""
    rounded = np.where(scores[0, :-1] < config.class_thresh, 0.0, 1.0)
    classes = np.where(rounded > config.class_thresh)[0]
    rows = {}
    if classes.any():
        column = _columns(minmax_norm(cas, clip=False), classes, config.scale)
        _bank(column, None, config.cas, rounded, classes, v_len, config, zeroed=True, into=rows, always=True)
    return [nms(rows[c], 0.7) for c in sorted(rows)]


def um(scores, cas, magnitude, v_len, config):
    classes = np.where(scores[0] >= config.class_thresh)[0]
    classes = classes if len(classes) else np.array([np.argmax(scores[0][0])])  # of one number
    column = _columns(minmax_norm(cas * magnitude), classes, config.scale)
    other = _columns(magnitude, classes, config.scale)
    rows, how = {}, {"shortest": 2}
    _bank(column, column, config.cas, scores[0], classes, v_len, config, zeroed=True, into=rows, **how)
    _bank(other, column, config.other, scores[0], classes, v_len, config, zeroed=False, into=rows, **how)
    return [nms(rows[c], 0.6) for c in sorted(rows)]


def lacp(scores, cas, v_len, config):
    """cas (1, T, C + 1), background last."""
    classes = _best_of(scores[0], config.class_thresh)
    column = _columns(cas[:, :, :-1], classes, config.scale)
    other = _columns(np.repeat(1 - cas[:, :, -1:], scores.shape[1], axis=2), classes, config.scale)
    rows = {}
    _bank(column, column, config.cas, scores[0], classes, v_len, config, zeroed=True, into=rows)
    _bank(other, column, config.other, scores[0], classes, v_len, config, zeroed=False, into=rows)
    return [row for c in sorted(rows) for row in nms(rows[c], 0.7)]


def cola_activations(values, classes, scale, num_classes):
    values = minmax_norm(values)
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], num_classes, axis=2)
    return _columns(values, classes, scale)


def cola_dict(column, other, classes, scores, v_len, config):
    rows = {}
    _bank(column, column, config.cas, scores, classes, v_len, config, zeroed=True, into=rows, shortest=2)
    _bank(other, column, config.other, scores, classes, v_len, config, zeroed=False, into=rows, shortest=2)
    return rows


def cola(scores, actionness, cas, v_len, config):
    classes = _best_of(scores[0], config.class_thresh)
    column, other = (cola_activations(x, classes, config.scale, scores.shape[1]) for x in (cas, actionness))
    rows = cola_dict(column, other, classes, scores[0], v_len, config)
    return [nms(rows[c], config.nms) for c in sorted(rows)]


def asl(scores, cas, v_len, config):
    classes = _best_of(scores[0], config.class_thresh)
    column, rows = _columns(cas, classes, config.scale), {}
    _bank(column, column, config.cas, scores[0], classes, v_len, config, zeroed=False, into=rows, margin=config.gamma)
    return [nms(rows[c], config.nms, config.soft_nms, config.nms_alpha) for c in sorted(rows)]


# ----------------------------------------------------------------------------------------------------------- LACP alone


def get_oic_score(values, start, end, delta=0.25):
    """The end is included."""
    return contrast(values, np.arange(start, end + 1), delta)


def select_seed(background, points):
    """(B, T) background scores and (B, T, C) annotations: seeds of action and of background, snippet by snippet."""
    act, bkg = points.copy(), np.zeros(background.shape, points.dtype)
    for b, scores in enumerate(background):
        length = len(scores)
        at = [t for t in range(length) if points[b, t].max() != 0]
        if not at:
            continue
        for before, after in zip([None, *at], [*at, None]):
            region = list(range(0 if before is None else before + 1, length if after is None else after))
            if not region:
                continue
            sure = [t for t in region if scores[t] >= 0.95] or [max(region, key=lambda t: scores[t])]
            lowest = region[0] if before is None else sure[0]
            highest = region[-1] if after is None else sure[-1]
            for t in region:
                if lowest <= t <= highest:
                    bkg[b, t] = 1
            for start, walk in ((before, region), (after, region[::-1])):
                for t in walk if start is not None else []:
                    if scores[t] > 0.1 or bkg[b, t] == 1:
                        break
                    act[b, t] = points[b, start]
    return act, bkg


# ----------------------------------------------------------------------------------------------------------------- STPN


def stpn_maps(main, sub, attention, alpha, classes, scale):
    """(S, P, 2): what is thresholded, and what scores; both 0 where the first is below 0.05."""
    parts = attention / (1 + np.exp(-main)), attention * (alpha * main + (1 - alpha) * sub)
    fine = upgrade_resolution(np.stack([part[:, classes] for part in parts], axis=2), scale)
    fine[fine[:, :, 0] < 0.05] = 0
    return fine


def stpn_proposals(found, maps, classes, scale, v_len):
    """Score: the mean of the second map.  400 segments and 10 frames per second are constants."""
    step, out = 16 * v_len / (scale * 400 * 10), []
    for i, where in enumerate(found):
        groups = consecutive(where[0]) if np.any(where[0]) else []
        out.append(
            [[classes[i], np.mean(maps[group, i, 1]), group[0] * step, (group[-1] + 1) * step] for group in groups]
        )
    return out


def stpn_nms(rows):
    """Which rows stay: greedy, above IoU 0.5, without "+1", at most 1,000."""
    left = sorted(range(len(rows)), key=lambda i: -rows[i][1])
    kept = []
    for i in left:
        for j in kept:
            shared = max(0.0, min(rows[i][3], rows[j][3]) - max(rows[i][2], rows[j][2]))
            union = rows[i][3] - rows[i][2] + rows[j][3] - rows[j][2] - shared
            if union > 0 and shared / union > 0.5:
                break
        else:
            kept.append(i)
    return kept[:1000]


def stpn_integrated(rgb, flow, rgb_classes, flow_classes):
    """Suppression for classes that both streams predict, and only for them."""
    out = []
    for c in range(20):
        mine = [
            rows[list(classes).index(c)] for rows, classes in ((rgb, rgb_classes), (flow, flow_classes)) if c in classes
        ]
        if len(mine) == 2:
            rows = sorted({tuple(row) for part in mine for row in part}, key=lambda row: (row[1], row[0], *row[2:]))
            rows = rows[::-1]
            out += [np.array(rows[i], dtype=np.float64) for i in stpn_nms(rows)]
        elif mine:
            out += mine[0]
    return out


def stpn(rgb, flow, rgb_attention, flow_attention, rgb_scores, flow_scores, v_len, scale=24):
    found, classes = [], []
    for main, sub, attention, scores in (
        (rgb, flow, rgb_attention, rgb_scores),
        (flow, rgb, flow_attention, flow_scores),
    ):
        predicted = [c for c, score in enumerate(scores[0]) if score > 0.1]
        if any(predicted):
            maps = stpn_maps(main, sub, attention, 0.5, predicted, scale)
            where = [np.where(maps[:, i, 0] > 0) for i in range(len(predicted))]
            found.append(stpn_proposals(where, maps, predicted, scale, v_len))
            classes.append(predicted)
    if len(found) == 2:
        return [stpn_integrated(*found, *classes)]
    return found[0] if found else []


# ----------------------------------------------------------------------------------------------------------------- CMCS


def cmcs_normalize(x):
    x = x - x.min()
    return x / x.max()


def cmcs_ticks(feature_type, frame_cnt, sample_rate, snippet_size=None):
    last = frame_cnt - snippet_size if feature_type == "i3d" else frame_cnt - 1
    return [frame for frame in range(frame_cnt) if frame % sample_rate == 0 and frame <= last]


def cmcs_interpolate(x, feature_type, frame_cnt, sample_rate, snippet_size=None, kind="linear"):
    ticks = cmcs_ticks(feature_type, frame_cnt, sample_rate, snippet_size)
    return interp1d(ticks, x, kind=kind)(np.arange(ticks[-1] + 1))


def cmcs_mask(metric, thrh_type, thrh_value, proc_type, proc_value):
    """(F, 1): a dilation over n frames reaches n // 2 to the left and (n - 1) // 2 to the right."""
    above = metric[:, 0] > (thrh_value if thrh_type == "max" else thrh_value * metric.mean())
    if proc_type == "median":
        padded = medfilt(np.pad(above.astype(float), proc_value), proc_value)  # False beyond both ends
        return padded[proc_value:-proc_value, None] > 0
    # frame t sees (n - 1) // 2 frames before it and n // 2 after it
    return maximum_filter1d(above, proc_value, mode="constant", origin=-1 if proc_value % 2 == 0 else 0)[:, None]


def cmcs_detections(mask, metric, weight_inner, weight_outter):
    """Rows [start, end, None, score]; slices as Python takes them, negative starts too."""
    rows = []
    for group in consecutive(np.flatnonzero(mask[:, 0])):
        s, e = group[0], group[-1] + 1
        left = metric[min(int(s - 0.25 * (e - s)), s - 1) : s, 0]
        right = metric[e : max(int(e + 0.25 * (e - s)), e + 1), 0]
        score = metric[s:e, 0].mean() * weight_inner
        around = np.concatenate([left, right])
        if len(around):
            score = score + around.mean() * weight_outter
        rows.append([s, e, None, score])
    return rows


def cmcs(avg_score, weight, global_score, duration, fps, frame_cnt, num_classes, ticks, how):
    """`ticks` is (feature_type, sample_rate, snippet_size), `how` the published settings by name."""

    def softmax(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    rows, totals = [], softmax(global_score)
    for c in range(num_classes):
        if totals[c] <= how["global_score_thrh"]:
            continue
        metric = softmax(avg_score)[:, c : c + 1]
        metric = cmcs_normalize(weight * metric if how["metric_type"] == "multiply" else metric)
        if how["metric_type"] == "att-filtering":
            metric[weight < how["att_filtering_value"]] = 0
            metric = cmcs_normalize(metric)
        fine = cmcs_interpolate(metric[:, 0], ticks[0], frame_cnt, *ticks[1:], how["interpolate_type"])[:, None]
        mask = cmcs_mask(fine, how["thrh_type"], how["thrh_value"], how["proc_type"], how["proc_value"])
        for s, e, _, score in cmcs_detections(mask, fine, how["weight_inner"], how["weight_outter"]):
            ends = [min(duration, max(0, (frame + how["sample_offset"]) / fps)) for frame in (s, e)]
            rows.append([*ends, c, score + totals[c] * how["weight_global"]])
    return rows
