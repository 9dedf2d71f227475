"use strict";
// Affine expressions of loop indices, written as Python's nest.py writes them: {terms: {name: factor}, constant}.

function affine(constant = 0, terms = {}) {
  return { terms, constant };
}

function index(name) {
  return affine(0, { [name]: 1 });
}

function plus(first, second) {
  if (typeof second === "number") return plus(first, affine(second));
  const terms = { ...first.terms };
  for (const [name, factor] of Object.entries(second.terms)) terms[name] = (terms[name] ?? 0) + factor;
  for (const name of Object.keys(terms)) if (terms[name] === 0) delete terms[name];
  return affine(first.constant + second.constant, terms);
}

function times(expression, factor) {
  if (factor === 0) return affine();
  const terms = Object.entries(expression.terms).map(([name, value]) => [name, value * factor]);
  return affine(expression.constant * factor, Object.fromEntries(terms));
}

/** As a person writes it, and also an expression of JavaScript. */
function written(expression) {
  const parts = Object.entries(expression.terms).map(([name, factor]) => (factor === 1 ? name : `${name}*${factor}`));
  if (expression.constant !== 0 || parts.length === 0) parts.push(String(expression.constant));
  return parts.join("+").replaceAll("+-", "-");
}

function valueOf(expression, indices) {
  let sum = expression.constant;
  for (const name in expression.terms) sum += expression.terms[name] * indices[name];
  return sum;
}
