// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

// Says so while a page gets no changes: its server cannot be reached, or the session has ended. A
// stream that is opened anew after an HTTP error tells everything: its address had the version of
// the page as it was loaded, which the page has left behind.
(function () {
  'use strict';
  function say(text) {
    var box = document.getElementById('connection');
    if (box && box.textContent !== text) {
      box.textContent = text;
      box.hidden = text === '';
    }
  }
  document.addEventListener('htmx:sseOpen', function (event) {
    say('');
    var at = event.target.getAttribute('sse-connect');
    if (at) {
      event.target.setAttribute('sse-connect', at.replace(/since=\d+/, 'since=0'));
    }
  });
  document.addEventListener('htmx:sseError', function () {
    say('Not connected to the console: this page may be out of date. It connects again by itself; if it does not, load it anew.');
  });
  document.addEventListener('htmx:sseClose', function (event) {
    if (event.detail.type === 'message') {
      say('You are logged out: this page is no longer up to date. Load it anew to log in.');
    }
  });
})();
