\set n random(0, 999)
SELECT id, status FROM otp_gateway.find('ideamart', '0779' || lpad(:n::text, 6, '0'));
