"""The console's pages, one file a page: each gathers its values, and its templates draw them; added by `web.app`.

Everything works without a script: what moves a lever is a link to a page that says what would move, and a form on it
that asks why. `console.js` only keeps open pages current.
"""
