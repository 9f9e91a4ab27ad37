-- Questions to a knowledge base, in SQL over its views (docs/duckdb.md):
--
--     unibind kb < examples/look_inside.sql
--
-- Any DuckDB answers them, too: unibind kb views > views.sql; duckdb -init views.sql < examples/look_inside.sql

-- How many texts of each kind were kept, and why the others were not?
SELECT kind, status, count(*) AS texts, any_value(reason) AS for_example
FROM v_descriptions GROUP BY ALL ORDER BY kind, texts DESC, status;

-- What did they cost? An unknown price is counted apart, never as zero.
SELECT provider, model_resolved, requests, texts, known_cost_usd, texts_of_unknown_cost FROM v_cost ORDER BY ALL;

-- Which two texts stand for each category first?
SELECT c.category_id, c.rank, round(c.score, 3) AS score, d.text
FROM v_centers AS c JOIN v_descriptions AS d USING (row_id)
WHERE c.rank < 2 ORDER BY c.category_id, c.rank;

-- Which categories have the fewest texts to choose from?
SELECT category_id, count(*) FILTER (status = 'ok') AS ok, count(*) AS asked_for
FROM v_descriptions WHERE kind = 'category' GROUP BY ALL ORDER BY ok, category_id LIMIT 5;

-- Which categories' texts lie nearest to each other? Vectors are of unit length: their product is the cosine.
SELECT a."group" AS one, b."group" AS other, round(max(array_inner_product(a.vector, b.vector)), 3) AS cosine
FROM v_category_vectors AS a JOIN v_category_vectors AS b ON a."group" < b."group"
GROUP BY ALL ORDER BY cosine DESC, one, other LIMIT 5;

-- Is every vector up to date with its text or file?
SELECT role, "table", state, count(*) AS vectors FROM v_vector_state GROUP BY ALL ORDER BY ALL;
