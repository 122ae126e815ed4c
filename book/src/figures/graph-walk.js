// The interactive figure of chapter 2: backward's walk through a graph of six nodes, step by step.
// Reads window.graphWalk (graph-walk-data.js, written by examples/ch02_autodiff.rs). No library, nothing fetched.
(function () {
    "use strict";

    var figure = document.getElementById("graph-walk");
    var data = window.graphWalk;
    if (!figure || !data || figure.getAttribute("data-ready")) {
        return; // the static picture stays
    }
    figure.setAttribute("data-ready", "yes");

    var SVG = "http://www.w3.org/2000/svg";
    var nodes = {};
    data.nodes.forEach(function (node) {
        nodes[node.id] = node;
    });
    var last = data.steps.length;
    var newest = data.nodes[data.nodes.length - 1];
    var step = 0;
    var narrow = null;

    // ---- what the state is after `step` steps ----

    /// Gradients that have arrived, and for every node: "waiting", "taken" (in this step), "done", or nothing yet.
    function state() {
        var gradients = {};
        var marks = {};
        gradients[newest.id] = data.steps[0].gradient;
        marks[newest.id] = "waiting";
        for (var i = 0; i < step; i++) {
            var walk = data.steps[i];
            marks[walk.take] = i === step - 1 ? "taken" : "done";
            walk.sends.forEach(function (sent) {
                gradients[sent.to] = sent.sum;
                marks[sent.to] = "waiting";
            });
        }
        return { gradients: gradients, marks: marks };
    }

    function number(value) {
        return String(Math.round(value * 1e6) / 1e6).replace("-", "\u2212");
    }

    /// "g·b" with the numbers of this step: "3·3".
    function withNumbers(rule, g) {
        var factor = rule.split("·")[1];
        if (!factor) {
            return number(g);
        }
        var multiple = /^[0-9]+/.exec(factor);
        var name = multiple ? factor.slice(multiple[0].length) : factor;
        var found = data.nodes.filter(function (node) {
            return node.name === name;
        })[0];
        return number(g) + "·" + (multiple ? multiple[0] + "·" : "") + number(found.value);
    }

    var WORDS = { mul: "a product", add: "a sum", square: "a square" };

    function sentence() {
        if (step === 0) {
            return (
                "Before the walk: the gradient of " + newest.name + " with respect to itself is 1. It waits at node " +
                newest.id + ", the only one that waits."
            );
        }
        var walk = data.steps[step - 1];
        var node = nodes[walk.take];
        var g = number(walk.gradient);
        var head = "Step " + step + " of " + last + ": take node " + node.id + ", ";
        if (walk.sends.length === 0) {
            var text = head + "a leaf. Its gradient is complete: d" + newest.name + "/d" + node.name + " = " + g + ".";
            return step === last ? text + " Nothing waits any more: the walk is over." : text;
        }
        var sends = walk.sends.map(function (sent) {
            var value = withNumbers(sent.rule, walk.gradient);
            var text = nodes[sent.to].name + " gets " + sent.rule + " = " + value;
            if (value !== number(sent.value)) {
                text += " = " + number(sent.value);
            }
            if (sent.before !== null) {
                text += ", added to the " + number(sent.before) + " that waits there: " + number(sent.sum);
            }
            return text;
        });
        return (
            head + WORDS[node.op] + ", " + node.name + " = " + node.formula + ". Its gradient is g = " + g + "; " +
            sends.join("; ") + "."
        );
    }

    function waiting(now) {
        var list = data.nodes
            .filter(function (node) {
                return now.marks[node.id] === "waiting";
            })
            .map(function (node) {
                return "node " + node.id + " (" + node.name + ") with " + number(now.gradients[node.id]);
            })
            .reverse();
        return "Waiting, newest first: " + (list.length ? list.join(", ") : "none") + ".";
    }

    // ---- drawing ----

    function element(name, attributes, parent, words) {
        var made = document.createElementNS(SVG, name);
        Object.keys(attributes).forEach(function (key) {
            made.setAttribute(key, attributes[key]);
        });
        if (words !== undefined) {
            made.textContent = words;
        }
        if (parent) {
            parent.appendChild(made);
        }
        return made;
    }

    /// Sizes of the drawing: from left to right on wide pages, from top to bottom on narrow ones.
    function layout() {
        var columns = 0;
        var rows = 0;
        data.nodes.forEach(function (node) {
            columns = Math.max(columns, node.place[0]);
            rows = Math.max(rows, node.place[1]);
        });
        if (narrow) {
            var box = [96, 62];
            return {
                size: [320, columns * 104 + box[1] + 8],
                box: box,
                middle: function (node) {
                    return [160 + (node.place[1] - rows / 2) * (212 / rows), 4 + box[1] / 2 + node.place[0] * 104];
                },
            };
        }
        var wide = [120, 62];
        return {
            size: [720, rows * 94 + wide[1] + 8],
            box: wide,
            middle: function (node) {
                return [4 + wide[0] / 2 + node.place[0] * ((712 - wide[0]) / columns), 4 + wide[1] / 2 + node.place[1] * 94];
            },
        };
    }

    /// The points where the straight line between two boxes leaves the one and enters the other.
    function between(from, to, box) {
        function edge(a, b) {
            var dx = b[0] - a[0];
            var dy = b[1] - a[1];
            var share = Math.min(box[0] / 2 / Math.max(Math.abs(dx), 1e-9), box[1] / 2 / Math.max(Math.abs(dy), 1e-9));
            return [a[0] + share * dx, a[1] + share * dy];
        }
        return [edge(from, to), edge(to, from)];
    }

    function arrow(svg, from, to, kind) {
        var length = Math.hypot(to[0] - from[0], to[1] - from[1]) || 1;
        var ux = (to[0] - from[0]) / length;
        var uy = (to[1] - from[1]) / length;
        var size = kind === "sent" ? 9 : 7;
        var foot = [to[0] - size * ux, to[1] - size * uy];
        element("path", { class: "gw-line gw-" + kind, d: "M" + round(from) + "L" + round(foot) }, svg);
        var half = size * 0.55;
        element(
            "path",
            {
                class: "gw-head gw-" + kind,
                d:
                    "M" + round([foot[0] - half * uy, foot[1] + half * ux]) + "L" + round(to) +
                    "L" + round([foot[0] + half * uy, foot[1] - half * ux]) + "Z",
            },
            svg
        );
    }

    function round(point) {
        return point[0].toFixed(1) + " " + point[1].toFixed(1);
    }

    function draw(svg) {
        var now = state();
        var plan = layout();
        while (svg.firstChild) {
            svg.removeChild(svg.firstChild);
        }
        svg.setAttribute("viewBox", "0 0 " + plan.size[0] + " " + plan.size[1]);
        svg.style.maxWidth = plan.size[0] + "px";
        var walk = step > 0 ? data.steps[step - 1] : { take: 0, sends: [] };
        var labels = [];
        data.nodes.forEach(function (node) {
            node.parents.forEach(function (id) {
                var ends = between(plan.middle(nodes[id]), plan.middle(node), plan.box);
                var sent = walk.take === node.id && walk.sends.filter(function (s) { return s.to === id; })[0];
                if (sent) {
                    arrow(svg, ends[1], ends[0], "sent");
                    labels.push([ends, (sent.value < 0 ? "" : "+") + number(sent.value)]);
                } else {
                    arrow(svg, ends[0], ends[1], "made");
                }
            });
        });
        data.nodes.forEach(function (node) {
            var at = plan.middle(node);
            var mark = now.marks[node.id] || "untouched";
            var group = element("g", { class: "gw-node gw-" + mark }, svg);
            element(
                "rect",
                {
                    x: at[0] - plan.box[0] / 2, y: at[1] - plan.box[1] / 2, rx: 6,
                    width: plan.box[0], height: plan.box[1],
                },
                group
            );
            var head = node.op === "leaf" ? node.name + " = " + number(node.value)
                : node.name + " = " + node.formula + " = " + number(node.value);
            var lines = ["node " + node.id + ": " + node.op, head];
            lines.push(mark === "untouched" ? "" : "gradient " + number(now.gradients[node.id]));
            lines.forEach(function (words, i) {
                var looks = { x: at[0], y: at[1] - 14 + 18.5 * i, class: i === 1 ? "gw-formula" : i === 2 ? "gw-gradient" : "gw-small" };
                element("text", looks, group, words);
            });
        });
        labels.forEach(function (label) {
            var ends = label[0];
            // nearer to the receiver, on a patch of the page's colour
            var at = [0.55 * ends[0][0] + 0.45 * ends[1][0], 0.55 * ends[0][1] + 0.45 * ends[1][1]];
            var width = 12 + 8 * label[1].length;
            if (Math.hypot(ends[0][0] - ends[1][0], ends[0][1] - ends[1][1]) < 60) {
                at[0] += (at[0] < plan.size[0] / 2 ? -1 : 1) * (6 + width / 2); // beside a short arrow, not on it
            }
            element("rect", { class: "gw-patch", x: at[0] - width / 2, y: at[1] - 11, width: width, height: 22, rx: 11 }, svg);
            element("text", { class: "gw-label", x: at[0], y: at[1] + 5 }, svg, label[1]);
        });
    }

    // ---- the page ----

    function html(name, attributes, parent, words) {
        var made = document.createElement(name);
        Object.keys(attributes).forEach(function (key) {
            made.setAttribute(key, attributes[key]);
        });
        if (words !== undefined) {
            made.textContent = words;
        }
        parent.appendChild(made);
        return made;
    }

    var CSS = [
        "#graph-walk .interactive { --gw-accent: var(--links, #20609f); color: var(--fg, currentColor); outline-offset: 6px; }",
        "#graph-walk .interactive:focus-visible, #graph-walk button:focus-visible { outline: 3px solid var(--gw-accent); border-radius: 4px; }",
        "#graph-walk svg { display: block; width: 100%; height: auto; margin: 0 auto; font-size: 13px; }",
        "#graph-walk text { fill: currentColor; text-anchor: middle; font-family: inherit; }",
        "#graph-walk .gw-small { font-size: 11.5px; opacity: 0.8; }",
        "#graph-walk .gw-formula, #graph-walk .gw-gradient { font-size: 13px; }",
        "#graph-walk .gw-gradient, #graph-walk .gw-label { font-weight: 600; fill: var(--gw-accent); }",
        "#graph-walk .gw-node rect { fill: var(--bg, transparent); stroke: currentColor; stroke-opacity: 0.55; }",
        "#graph-walk .gw-waiting rect { stroke: var(--gw-accent); stroke-opacity: 1; stroke-width: 2; stroke-dasharray: 5 4; }",
        "#graph-walk .gw-taken rect { stroke: var(--gw-accent); stroke-opacity: 1; stroke-width: 4; }",
        "#graph-walk .gw-done rect { stroke: var(--gw-accent); stroke-opacity: 1; stroke-width: 1.5; }",
        "#graph-walk .gw-line { fill: none; stroke: currentColor; stroke-width: 1.3; opacity: 0.55; }",
        "#graph-walk .gw-head { fill: currentColor; opacity: 0.55; }",
        "#graph-walk .gw-line.gw-sent { stroke: var(--gw-accent); stroke-width: 3; opacity: 1; }",
        "#graph-walk .gw-head.gw-sent { fill: var(--gw-accent); opacity: 1; }",
        "#graph-walk .gw-patch { fill: var(--bg, Canvas); stroke: var(--gw-accent); }",
        "#graph-walk .gw-bar { display: flex; flex-wrap: wrap; gap: 0.5em; align-items: center; margin: 0.8em 0 0.4em; }",
        "#graph-walk button { font: inherit; color: inherit; background: var(--quote-bg, transparent); border: 1px solid currentColor; border-radius: 4px; padding: 0.25em 0.9em; cursor: pointer; }",
        "#graph-walk button:disabled { opacity: 0.45; cursor: default; }",
        "#graph-walk .gw-count { opacity: 0.8; }",
        // as many lines as the longest sentence takes, so that the page below does not jump
        "#graph-walk .gw-say { margin: 0.3em 0; min-height: 4.8em; }",
        "@media (max-width: 560px) { #graph-walk .gw-say { min-height: 8em; } }",
        "#graph-walk .gw-wait { margin: 0.3em 0; opacity: 0.85; }",
    ];
    html("style", {}, figure, CSS.join("\n"));
    var fallback = figure.querySelector("img");
    if (fallback) {
        fallback.style.display = "none"; // print shows it again (theme/book.css)
    }
    var stage = html("div", {
        class: "interactive", tabindex: "0", role: "group",
        "aria-label": "A walk through the graph, step by step. Arrow keys go forward and back, Home to the start, End to the end.",
    }, figure);
    var svg = element("svg", { role: "img", "aria-label": "The graph of y = (a·b + a²)·b; the sentence below tells what happens in it." }, stage);
    var bar = html("div", { class: "gw-bar" }, stage);
    var back = html("button", { type: "button" }, bar, "Back");
    var forward = html("button", { type: "button" }, bar, "Forward");
    var reset = html("button", { type: "button" }, bar, "Reset");
    var count = html("span", { class: "gw-count" }, bar);
    var say = html("p", { class: "gw-say", role: "status", "aria-live": "polite" }, stage);
    var wait = html("p", { class: "gw-wait" }, stage);

    function show() {
        draw(svg);
        say.textContent = sentence();
        wait.textContent = waiting(state());
        count.textContent = step + " of " + last;
        // A button that is disabled while it has the focus would lose it: hand it on first.
        var active = document.activeElement;
        if (step === last && active === forward) {
            back.disabled = false;
            back.focus();
        } else if (step === 0 && (active === back || active === reset)) {
            forward.disabled = false;
            forward.focus();
        }
        back.disabled = step === 0;
        reset.disabled = step === 0;
        forward.disabled = step === last;
    }

    function go(to) {
        step = Math.max(0, Math.min(last, to));
        show();
    }

    back.addEventListener("click", function () { go(step - 1); });
    forward.addEventListener("click", function () { go(step + 1); });
    reset.addEventListener("click", function () { go(0); });
    stage.addEventListener("keydown", function (event) {
        var to = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: last }[event.key];
        if (to === undefined || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) {
            return;
        }
        event.preventDefault();
        event.stopPropagation(); // mdBook turns pages with the arrow keys
        go(to);
    });

    function fit() {
        var now = (figure.clientWidth || 720) < 560;
        if (now !== narrow) {
            narrow = now;
            show();
        }
    }
    fit();
    window.addEventListener("resize", fit);
})();
