"""The pages: the library, a player, the history. Plain HTML; one script of our own reports what is watched."""

from __future__ import annotations

from flask import Blueprint, Response, abort, make_response, render_template, request, send_file

from streaming_app.services import services

blueprint = Blueprint("pages", __name__)
