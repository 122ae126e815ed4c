// Written by examples/ch02_autodiff.rs.
window.graphWalk = {
  "nodes": [
    {
      "formula": "a",
      "id": 1,
      "name": "a",
      "op": "leaf",
      "parents": [],
      "place": [
        0.0,
        0.0
      ],
      "value": 2.0
    },
    {
      "formula": "b",
      "id": 2,
      "name": "b",
      "op": "leaf",
      "parents": [],
      "place": [
        0.0,
        2.0
      ],
      "value": 3.0
    },
    {
      "formula": "a·b",
      "id": 3,
      "name": "c",
      "op": "mul",
      "parents": [
        1,
        2
      ],
      "place": [
        1.0,
        1.0
      ],
      "value": 6.0
    },
    {
      "formula": "a²",
      "id": 4,
      "name": "s",
      "op": "square",
      "parents": [
        1
      ],
      "place": [
        1.0,
        0.0
      ],
      "value": 4.0
    },
    {
      "formula": "c + s",
      "id": 5,
      "name": "d",
      "op": "add",
      "parents": [
        3,
        4
      ],
      "place": [
        2.0,
        0.5
      ],
      "value": 10.0
    },
    {
      "formula": "d·b",
      "id": 6,
      "name": "y",
      "op": "mul",
      "parents": [
        5,
        2
      ],
      "place": [
        3.0,
        1.0
      ],
      "value": 30.0
    }
  ],
  "steps": [
    {
      "gradient": 1.0,
      "sends": [
        {
          "before": null,
          "rule": "g·b",
          "sum": 3.0,
          "to": 5,
          "value": 3.0
        },
        {
          "before": null,
          "rule": "g·d",
          "sum": 10.0,
          "to": 2,
          "value": 10.0
        }
      ],
      "take": 6
    },
    {
      "gradient": 3.0,
      "sends": [
        {
          "before": null,
          "rule": "g",
          "sum": 3.0,
          "to": 3,
          "value": 3.0
        },
        {
          "before": null,
          "rule": "g",
          "sum": 3.0,
          "to": 4,
          "value": 3.0
        }
      ],
      "take": 5
    },
    {
      "gradient": 3.0,
      "sends": [
        {
          "before": null,
          "rule": "g·2a",
          "sum": 12.0,
          "to": 1,
          "value": 12.0
        }
      ],
      "take": 4
    },
    {
      "gradient": 3.0,
      "sends": [
        {
          "before": 12.0,
          "rule": "g·b",
          "sum": 21.0,
          "to": 1,
          "value": 9.0
        },
        {
          "before": 10.0,
          "rule": "g·a",
          "sum": 16.0,
          "to": 2,
          "value": 6.0
        }
      ],
      "take": 3
    },
    {
      "gradient": 16.0,
      "sends": [],
      "take": 2
    },
    {
      "gradient": 21.0,
      "sends": [],
      "take": 1
    }
  ]
};
