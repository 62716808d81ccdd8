-- Played before each scene. Nobody is to press keys at a demonstration, and a table is no wider than a screen.
\pset pager off
\pset footer off
\pset null '-'
\pset border 1
\set ON_ERROR_STOP on
\set ECHO none
